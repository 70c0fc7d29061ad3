//! `cargo xtask schema`: the generated schema table, and the proof that it is fresh and right.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// The table, from the repository's root.
const TABLE: &str = "crates/schema/data/v1.37.schema";
/// Our generator, a small Go module that pins upstream's modules.
const GENERATOR: &str = "tools/schema-gen";
/// How upstream's server names fields in memory, from the repository's root.
const NAMES: &str = "crates/schema/data/v1.37.internal";
/// What finds them out, in the module that pins the server's.
const NAMER: &str = "tools/oracle";

/// Writes the table anew, or with `check` compares it and runs the tests against upstream's fixtures and Go types.
pub fn run(check: bool) -> Result<()> {
    let root = root()?;
    let fresh = generate(&root, GENERATOR, &[".", "table"])?;
    let table = root.join(TABLE);
    let names = generate(&root, NAMER, &["./internal-names"])?;
    if !check {
        std::fs::write(root.join(NAMES), &names).with_context(|| format!("writing {NAMES}"))?;
        std::fs::write(&table, &fresh).with_context(|| format!("writing {TABLE}"))?;
        println!("{TABLE}: {} types, {} bytes", fresh.matches("\n:").count(), fresh.len());
        return Ok(());
    }
    let committed = std::fs::read_to_string(&table).with_context(|| format!("reading {TABLE}"))?;
    ensure!(committed == fresh, "{TABLE} is stale: run `cargo xtask schema` and look at the diff");
    let committed = std::fs::read_to_string(root.join(NAMES)).with_context(|| format!("reading {NAMES}"))?;
    ensure!(committed == names, "{NAMES} is stale: run `cargo xtask schema` and look at the diff");
    let tests = Command::new(env!("CARGO"))
        .args([
            "test",
            "-q",
            "-p",
            "corten-schema",
            "-p",
            "corten-object",
            "-p",
            "corten-auth",
            "--test",
            "upstream",
            "--",
            "--ignored",
        ])
        .current_dir(&root)
        .status()?;
    ensure!(tests.success(), "the tests against upstream failed");
    Ok(())
}

fn root() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    root.map(Path::to_path_buf).context("xtask lies two folders below the root")
}

fn generate(root: &Path, module: &str, program: &[&str]) -> Result<String> {
    let run = Command::new("go").arg("run").args(program).current_dir(root.join(module)).output();
    let output = match run {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!("`go` is not in PATH: the schema tables are made by {module}, which needs Go 1.26 or newer")
        }
        Err(error) => return Err(error).context("running go"),
    };
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{module} failed (it needs the Go modules that its go.mod names): {told}");
    Ok(String::from_utf8(output.stdout)?)
}
