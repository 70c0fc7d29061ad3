//! Upstream's suite and the programs of its images, built with Go from the modules that `tools/conformance` pins.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use corten_testkit::{cache_dir, root, run};
use serde_json::Value;

/// The version of the suite; the Go module pins the same.
pub(super) const VERSION: &str = "v1.37.2";

/// Where everything that this command makes is kept between runs.
pub(super) fn home() -> PathBuf {
    cache_dir().join("conformance")
}

/// A test of the suite.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Test {
    /// Its full text, as ginkgo shows it.
    pub name: String,
    /// Without `sig-`; `none` if the suite names none.
    pub sig: String,
}

/// What is built of a package: a test program, or a static program for an image.
enum Output {
    Suite,
    Program,
    Static,
}

/// Builds a package of the pinned modules unless it is there, and returns the program.
fn build(package: &str, name: &str, output: &Output) -> Result<PathBuf> {
    let module = root().join("tools/conformance");
    let program = home().join("bin").join(name);
    let stamp = program.with_extension("stamp");
    let pins = fs::read_to_string(module.join("go.mod"))?;
    if program.exists() && fs::read_to_string(&stamp).is_ok_and(|s| s == pins) {
        return Ok(program);
    }
    fs::create_dir_all(home().join("bin"))?;
    eprintln!("building {name} ({package})");
    let began = Instant::now();
    let mut go = Command::new("go");
    match output {
        Output::Suite => go.args(["test", "-c", "-vet=off"]),
        Output::Program => go.arg("build"),
        Output::Static => go.arg("build").env("CGO_ENABLED", "0"),
    };
    // What the programs say that they are; some tests take their expectations from it.
    let facts = [("gitVersion", VERSION), ("gitMajor", "1"), ("gitMinor", "37")];
    let facts = facts.map(|(name, value)| format!("-X k8s.io/component-base/version.{name}={value}"));
    go.args(["-ldflags", &format!("-s -w {}", facts.join(" ")), "-o"]).arg(&program).arg(package).current_dir(&module);
    match go.status() {
        Ok(status) if status.success() => {}
        Ok(status) => bail!("building {package} failed with {status}"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!("`go` is not in PATH: the suite is Go code, install Go 1.26 or newer")
        }
        Err(error) => return Err(error).context("running go"),
    }
    eprintln!("built {name} in {:.0} s", began.elapsed().as_secs_f64());
    fs::write(&stamp, pins)?;
    Ok(program)
}

/// The suite itself. The first build takes many minutes.
pub(super) fn e2e() -> Result<PathBuf> {
    build("k8s.io/kubernetes/test/e2e", "e2e.test", &Output::Suite)
}

/// The runner that spreads a suite over several processes.
pub(super) fn ginkgo() -> Result<PathBuf> {
    build("github.com/onsi/ginkgo/v2/ginkgo", "ginkgo", &Output::Program)
}

/// A program for an image.
pub(super) fn image_program(package: &str, name: &str) -> Result<PathBuf> {
    build(package, name, &Output::Static)
}

/// The directory of a pinned module's sources, for the data files of its images.
pub(super) fn module_dir(module: &str) -> Result<PathBuf> {
    let mut go = Command::new("go");
    go.args(["list", "-m", "-f", "{{.Dir}}", module]).current_dir(root().join("tools/conformance"));
    let output = run(&mut go)?;
    Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

/// All tests of the conformance set, by name, from a dry run that is kept beside the program.
pub(super) fn tests(e2e: &Path) -> Result<Vec<Test>> {
    let dir = home().join("list");
    let report = dir.join("ginkgo/report.json");
    let age = |path: &Path| fs::metadata(path).and_then(|m| m.modified());
    if !report.exists() || age(&report)? < age(e2e)? {
        fs::create_dir_all(&dir)?;
        let mut list = Command::new(e2e);
        list.args(["--provider=skeleton", "--ginkgo.dry-run", "--ginkgo.label-filter=Conformance"]);
        list.args(["--report-complete-ginkgo", "--report-dir"]).arg(&dir).current_dir(&dir);
        run(&mut list).context("listing the suite's tests")?;
    }
    let mut tests: Vec<Test> = specs(&report)?.iter().filter(|spec| conformance(spec)).map(test_of).collect();
    tests.sort();
    Ok(tests)
}

/// The reports of single tests in a report file of ginkgo.
pub(super) fn specs(report: &Path) -> Result<Vec<Value>> {
    let text = fs::read(report).with_context(|| format!("the suite wrote no report at {}", report.display()))?;
    let suites: Value = serde_json::from_slice(&text).with_context(|| report.display().to_string())?;
    let mut found = Vec::new();
    for suite in suites.as_array().into_iter().flatten() {
        found.extend(suite["SpecReports"].as_array().into_iter().flatten().cloned());
    }
    Ok(found)
}

/// All labels of a spec: its containers' and its own.
fn labels(spec: &Value) -> impl Iterator<Item = &str> {
    let containers = spec["ContainerHierarchyLabels"].as_array().into_iter().flatten();
    let leaf = spec["LeafNodeLabels"].as_array().into_iter().flatten();
    containers.flat_map(|l| l.as_array().into_iter().flatten()).chain(leaf).filter_map(Value::as_str)
}

fn conformance(spec: &Value) -> bool {
    spec["LeafNodeType"] == "It" && labels(spec).any(|l| l == "Conformance")
}

/// The name and SIG of a spec.
pub(super) fn test_of(spec: &Value) -> Test {
    let texts = spec["ContainerHierarchyTexts"].as_array().into_iter().flatten().chain([&spec["LeafNodeText"]]);
    let name = texts.filter_map(Value::as_str).collect::<Vec<_>>().join(" ");
    let sig = labels(spec).find_map(|l| l.strip_prefix("sig-")).unwrap_or("none").to_owned();
    Test { name, sig }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn a_spec_tells_its_name_and_sig() {
        let spec = json!({
            "ContainerHierarchyTexts": ["[sig-auth] A", "b"], "ContainerHierarchyLabels": [["sig-auth"], null],
            "LeafNodeType": "It", "LeafNodeText": "c [Conformance]", "LeafNodeLabels": ["Conformance"]
        });
        assert!(super::conformance(&spec));
        let test = super::test_of(&spec);
        assert_eq!((test.name.as_str(), test.sig.as_str()), ("[sig-auth] A b c [Conformance]", "auth"));
        let mut other = spec;
        other["LeafNodeLabels"] = json!(null);
        assert!(!super::conformance(&other));
    }
}
