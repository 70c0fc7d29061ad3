//! `cargo xtask clients`: programs of client-go, controller-runtime and kube-rs against a real cluster.
//!
//! Each controller has a kind of its own (a CRD) and does the same work; what it must have done is checked here, with kubectl.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use corten_testkit::cluster::Cluster;
use corten_testkit::leftovers::Snapshot;
use corten_testkit::{cache_dir, root};
use rustix::process::{Pid, Signal, kill_process};

use crate::interrupt::Interrupt;

/// Arguments of `clients`.
#[derive(Debug, Args)]
pub(crate) struct ClientsArgs {
    /// Test this binary instead of building one
    #[arg(long, value_name = "PATH")]
    corten: Option<PathBuf>,
    /// Only programs whose name contains this
    #[arg(long, default_value = "", value_name = "TEXT")]
    filter: String,
    /// Only build the programs
    #[arg(long)]
    prepare: bool,
}

/// A test of a client library.
type Test = fn(&Programs, &Cluster) -> Result<()>;

const TESTS: &[(&str, Test)] = &[
    ("typed", typed),
    ("informer", |programs, cluster| {
        let running = programs.start(cluster, &programs.go("informer"), "informer")?;
        work(cluster, "InformerBundle", "one", "informer")?;
        running.stop()
    }),
    ("manager", manager),
    ("kubers", |programs, cluster| {
        let running = programs.start(cluster, &programs.rust(), "kubers")?;
        work(cluster, "KubersBundle", "one", "kubers")?;
        running.stop()
    }),
];

/// How long one step of a controller may take, as kubectl's `--timeout`.
const TIMEOUT: &str = "--timeout=30s";

/// Builds the programs, starts a cluster, runs, takes it down.
pub(crate) fn run(args: &ClientsArgs) -> Result<()> {
    let programs = Programs::build()?;
    if args.prepare {
        return Ok(());
    }
    let corten = match &args.corten {
        Some(path) => fs::canonicalize(path).with_context(|| path.display().to_string())?,
        None => crate::conformance::build()?,
    };
    let before = Snapshot::take();
    let interrupt = Interrupt::listen()?;
    let cluster = Cluster::up(&corten, "clients")?;
    let mut failed = Vec::new();
    for (name, test) in TESTS.iter().filter(|(name, _)| name.contains(&args.filter)) {
        if interrupt.check().is_err() {
            break;
        }
        let began = Instant::now();
        let outcome = test(&programs, &cluster);
        let seconds = began.elapsed().as_secs_f64();
        match outcome {
            Ok(()) => eprintln!("{name}: ok ({seconds:.1} s)"),
            Err(error) => {
                eprintln!("{name}: FAILED ({seconds:.1} s): {error:#}");
                failed.push(*name);
            }
        }
    }
    cluster.down()?;
    let left = Snapshot::take().since(&before);
    ensure!(left.is_empty(), "left behind:\n  {}", left.join("\n  "));
    interrupt.check()?;
    if failed.is_empty() { Ok(()) } else { bail!("failed: {}; logs: {}", failed.join(", "), programs.dir.display()) }
}

/// The built programs.
struct Programs {
    dir: PathBuf,
}

impl Programs {
    fn build() -> Result<Programs> {
        let programs = Programs { dir: cache_dir().join("clients") };
        fs::create_dir_all(&programs.dir)?;
        let (go, rust) = (root().join("tools/clients/go"), root().join("tools/clients/rust"));
        for name in ["typed", "informer", "manager"] {
            let mut command = Command::new("go");
            command.args(["build", "-o"]).arg(programs.go(name)).arg(format!("./{name}")).current_dir(&go);
            let status = command.status().context("`go` (1.26 or newer) is needed")?;
            ensure!(status.success(), "building {name} failed");
        }
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--quiet", "--locked", "--target-dir"]).arg(programs.dir.join("rust")).current_dir(&rust);
        ensure!(cargo.status()?.success(), "building the kube-rs program failed");
        Ok(programs)
    }

    fn go(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn rust(&self) -> PathBuf {
        self.dir.join("rust/debug/corten-clients")
    }

    /// Starts a controller under a name, which its ConfigMaps bear.
    fn start(&self, cluster: &Cluster, program: &Path, name: &str) -> Result<Running> {
        let log = fs::File::create(self.dir.join(format!("{name}.log")))?;
        let mut command = Command::new(program);
        command.arg(name).env("KUBECONFIG", cluster.kubeconfig()).stdin(Stdio::null());
        Ok(Running { child: command.stdout(log.try_clone()?).stderr(log).spawn()?, name: name.to_owned() })
    }
}

/// A running controller; it ends with this.
struct Running {
    child: Child,
    name: String,
}

impl Running {
    /// Asks it to end, and expects it to do so well.
    fn stop(mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended early: {status}", self.name);
        }
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "{} ended with {status}", self.name);
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A typed client with protobuf bodies: it checks what it gets by itself.
fn typed(programs: &Programs, cluster: &Cluster) -> Result<()> {
    let mut command = Command::new(programs.go("typed"));
    print!("{}", corten_testkit::text(command.env("KUBECONFIG", cluster.kubeconfig()))?);
    Ok(())
}

/// Two managers, of which one leads; when it goes, the other takes over.
fn manager(programs: &Programs, cluster: &Cluster) -> Result<()> {
    let first = programs.start(cluster, &programs.go("manager"), "first")?;
    let lease = "lease/clients-manager";
    cluster.kubectl(&["wait", "--for=create", lease, TIMEOUT])?;
    cluster.kubectl(&["wait", "--for=jsonpath={.spec.holderIdentity}", lease, TIMEOUT])?;
    let leader = cluster.kubectl(&["get", lease, "-o", "jsonpath={.spec.holderIdentity}"])?;
    let second = programs.start(cluster, &programs.go("manager"), "second")?;
    work(cluster, "ManagerBundle", "one", "first")?;
    first.stop()?;
    work(cluster, "ManagerBundle", "two", "second")?;
    let of = |path: &str| cluster.kubectl(&["get", lease, "-o", &format!("jsonpath={{{path}}}")]);
    ensure!(of(".spec.holderIdentity")? != leader, "the lease is still held by {leader}");
    ensure!(of(".spec.leaseTransitions")?.parse::<u32>()? >= 1, "the lease counts no change of hands");
    second.stop()?;
    ensure!(of(".spec.holderIdentity")?.is_empty(), "the last leader did not let go of the lease");
    Ok(())
}

/// The definition of a controller's kind.
fn definition(kind: &str) -> String {
    let singular = kind.to_lowercase();
    format!(
        "apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {{name: {singular}s.clients.corten.dev}}
spec:
  group: clients.corten.dev
  scope: Namespaced
  names: {{kind: {kind}, plural: {singular}s, singular: {singular}}}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {{status: {{}}}}
    additionalPrinterColumns:
    - {{name: Copies, type: integer, jsonPath: .status.copies}}
    schema:
      openAPIV3Schema:
        type: object
        required: [spec]
        properties:
          spec:
            type: object
            required: [value]
            properties:
              value: {{type: string, minLength: 1}}
              copies: {{type: integer, format: int32, default: 2, minimum: 0, maximum: 10}}
          status:
            type: object
            properties:
              copies: {{type: integer, format: int32}}
              observedGeneration: {{type: integer, format: int64}}
"
    )
}

/// Has a controller work on a bundle from its beginning to its end; its ConfigMaps must be by `writer`.
fn work(cluster: &Cluster, kind: &str, name: &str, writer: &str) -> Result<()> {
    let plural = format!("{}s.clients.corten.dev", kind.to_lowercase());
    let (crd, bundle) = (format!("crd/{plural}"), format!("{plural}/{name}"));
    let wait = |what: &str, object: &str| cluster.kubectl(&["wait", &format!("--for={what}"), object, TIMEOUT]);
    let map = |i: u32| format!("configmap/{name}-{i}");
    let patch = |spec: &str| {
        let patch = format!("{{\"spec\":{spec}}}");
        cluster.kubectl(&["patch", &bundle, "--type=merge", "-p", &patch])
    };
    cluster.kubectl_with(&["apply", "-f", "-"], &definition(kind))?;
    // A new definition has no list of conditions yet, on which `--for=condition` fails: names come with them.
    wait(&format!("jsonpath={{.status.acceptedNames.kind}}={kind}"), &crd)?;
    wait("condition=Established", &crd)?;
    let manifest = format!("apiVersion: clients.corten.dev/v1\nkind: {kind}\nmetadata: {{name: {name}}}\n");
    let refused =
        cluster.kubectl_fails(&["apply", "-f", "-"], &format!("{manifest}spec: {{value: a, copies: 11}}\n"))?;
    let wanted = "spec.copies: Invalid value: 11: spec.copies in body should be less than or equal to 10";
    ensure!(refused.contains(wanted), "expected {wanted:?} in:\n{refused}");

    cluster.kubectl_with(&["apply", "-f", "-"], &format!("{manifest}spec: {{value: a}}\n"))?;
    wait("jsonpath={.status.copies}=2", &bundle).context("the default number of copies")?;
    for i in 0..2 {
        wait("jsonpath={.data.value}=a", &map(i))?;
    }
    let by = "jsonpath={.metadata.annotations.clients\\.corten\\.dev/by}";
    let found = cluster.kubectl(&["get", &map(0), "-o", by])?;
    ensure!(found == writer, "{} is by {found:?}, not by {writer}", map(0));
    let owner = cluster.kubectl(&["get", &map(0), "-o", "jsonpath={.metadata.ownerReferences[0].kind}"])?;
    ensure!(owner == kind, "{} belongs to a {owner:?}", map(0));

    patch("{\"value\":\"b\",\"copies\":3}")?;
    for i in 0..3 {
        wait("create", &map(i))?;
        wait("jsonpath={.data.value}=b", &map(i)).context("a change of the value")?;
    }
    let generation = cluster.kubectl(&["get", &bundle, "-o", "jsonpath={.metadata.generation}"])?;
    wait(&format!("jsonpath={{.status.observedGeneration}}={generation}"), &bundle)?;
    let table = cluster.kubectl(&["get", &plural])?;
    ensure!(table.contains("COPIES"), "the printer column is missing:\n{table}");

    patch("{\"copies\":1}")?;
    for i in 1..3 {
        wait("delete", &map(i)).context("fewer copies")?;
    }
    cluster.kubectl(&["delete", &map(0)])?;
    wait("create", &map(0)).context("a ConfigMap that someone deleted comes back")?;

    cluster.kubectl(&["delete", &bundle, TIMEOUT]).context("the finalizer goes")?;
    wait("create", &format!("configmap/{name}-goodbye")).context("the finalizer's work")?;
    wait("delete", &map(0)).context("what the bundle owned goes with it")?;
    Ok(())
}
