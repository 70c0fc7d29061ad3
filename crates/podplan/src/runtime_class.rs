//! Which handlers of RuntimeClasses this node has.

/// The built-in runtime, under its own name and under the one that classes made for containerd have.
pub const HANDLERS: [&str; 2] = ["corten", "runc"];

/// Whether pods of a class with this handler run here.
///
/// # Errors
/// As containerd says it (`internal/cri/server/podsandbox` `GetSandboxRuntime`).
pub fn check(handler: &str) -> Result<(), String> {
    if HANDLERS.contains(&handler) {
        return Ok(());
    }
    Err(format!("failed to get sandbox runtime: no runtime for {handler:?} is configured"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn runtime_class_handlers_are_the_built_in_runtime() {
        assert_eq!(["corten", "runc"].map(super::check), [Ok(()), Ok(())]);
        let refused = super::check("kata").unwrap_err();
        assert_eq!(refused, "failed to get sandbox runtime: no runtime for \"kata\" is configured");
    }
}
