//! `cargo xtask schema`: the generated schema table, and the proof that it is fresh and right.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// The table, from the repository's root.
const TABLE: &str = "crates/schema/data/v1.37.schema";
/// Our generator, a small Go module that pins upstream's modules.
const GENERATOR: &str = "tools/schema-gen";

/// Writes the table anew, or with `check` compares it and runs the tests against upstream's fixtures and Go types.
pub fn run(check: bool) -> Result<()> {
    let root = root()?;
    let fresh = generate(&root.join(GENERATOR))?;
    let table = root.join(TABLE);
    if !check {
        std::fs::write(&table, &fresh).with_context(|| format!("writing {TABLE}"))?;
        println!("{TABLE}: {} types, {} bytes", fresh.matches("\n:").count(), fresh.len());
        return Ok(());
    }
    let committed = std::fs::read_to_string(&table).with_context(|| format!("reading {TABLE}"))?;
    ensure!(committed == fresh, "{TABLE} is stale: run `cargo xtask schema` and look at the diff");
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

fn generate(directory: &Path) -> Result<String> {
    let run = Command::new("go").args(["run", ".", "table"]).current_dir(directory).output();
    let output = match run {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!("`go` is not in PATH: the schema table is made by {GENERATOR}, which needs Go 1.26 or newer")
        }
        Err(error) => return Err(error).context("running go"),
    };
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{GENERATOR} failed (it needs the Go modules that its go.mod names): {told}");
    Ok(String::from_utf8(output.stdout)?)
}
