//! Real containers on the real kernel. The test binary is its own shim, so it has its own main.
//!
//! Needs root and a static busybox (Debian: `busybox-static`). Run one test with `cargo test -p corten-runtime --test
//! containers NAME`.

#![allow(clippy::unwrap_used, reason = "a test without libtest's harness, so clippy does not see that it is one")]

mod basics;
mod bench;
mod isolation;
mod lifecycle;
mod machine;
mod quota;
mod recorded;
mod regressions;
mod streams;
mod users;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use corten_testkit::choice::Choice;

type Test = (&'static str, fn(&machine::Machine));

fn main() -> ExitCode {
    corten_runtime::dispatch();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [what, base, id] = arguments.as_slice()
        && what == "server-to-kill"
    {
        lifecycle::server_to_kill(base.as_ref(), id);
    }
    let choice = Choice::of(&arguments);
    if arguments.iter().any(|a| a == "--list") {
        return ExitCode::SUCCESS;
    }
    if let Err(missing) = machine::requirements() {
        // Without the means there is nothing to prove; with `CORTEN_TEST_STRICT` that is a failure.
        println!("containers: not run: {missing}");
        return if std::env::var_os("CORTEN_TEST_STRICT").is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    }
    let tests: Vec<Test> = [
        basics::TESTS,
        streams::TESTS,
        isolation::TESTS,
        regressions::TESTS,
        lifecycle::TESTS,
        recorded::TESTS,
        users::TESTS,
        quota::TESTS,
        bench::TESTS,
    ]
    .concat();
    let mut failed = Vec::new();
    for (name, test) in tests.iter().filter(|(name, _)| choice.takes(name)) {
        let machine = machine::Machine::new(name);
        let passed = catch_unwind(AssertUnwindSafe(|| test(&machine))).is_ok();
        let clean = catch_unwind(AssertUnwindSafe(|| machine.clean_up())).is_ok();
        println!("test {name} ... {}", if passed && clean { "ok" } else { "FAILED" });
        if !(passed && clean) {
            failed.push(*name);
        }
    }
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("failed: {}", failed.join(", "));
    ExitCode::FAILURE
}
