//! End to end: the real binary, real containers, the real kubectl. Needs root.
//!
//! One cluster serves all cases, in order; each works in a namespace of its own. Arguments select cases by name. At the end
//! nothing may be left on the machine.

mod apply;
mod beyond;
mod crash;
mod drain;
mod faults;
mod helm;
mod images;
mod kills;
mod kubectl;
mod node;
mod own_server;
mod postgres;
mod proxies;
mod traffic;
mod workloads;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use corten_testkit::cluster::Cluster;
use corten_testkit::debian;
use corten_testkit::leftovers::Snapshot;

type Case = (&'static str, fn(&mut Cluster) -> Result<()>);

const CASES: &[Case] = &[
    ("kubectl_reads", kubectl::reads),
    ("kubectl_writes", kubectl::writes),
    ("kubectl_generators", kubectl::generators),
    ("kubectl_streams", kubectl::streams),
    ("kubectl_rollout", kubectl::rollout),
    ("proxies", proxies::proxies),
    ("port_forward", proxies::port_forward),
    ("attach", proxies::attach),
    ("custom_resources", apply::custom_resources),
    ("large_definition", apply::large_definition),
    ("server_side_apply", apply::server_side),
    ("client_side_to_server_side_apply", apply::client_side_to_server_side),
    ("kubectl_diff", apply::diff),
    ("helm_chart", helm::chart),
    ("examples", workloads::examples),
    ("pod_features", workloads::pod_features),
    ("beyond_rollouts", beyond::rollouts),
    ("beyond_repairs", beyond::repairs),
    ("beyond_on_demand", beyond::on_demand),
    ("refused_manifests", faults::refused_manifests),
    ("failing_pods", faults::failing_pods),
    ("service_account_pull_secrets", images::service_account_pull_secrets),
    ("preloaded_archives", images::preloaded_archives),
    ("rolling_update_drops_nothing", traffic::rolling_update_drops_nothing),
    ("postgres_keeps_its_data", postgres::keeps_its_data),
    ("shutdown_delay", drain::shutdown_delay),
    ("host_users", node::host_users),
    ("static_pods", node::static_pods),
    ("graceful_node_shutdown", node::graceful_node_shutdown),
    ("containers_survive_the_server", crash::containers_survive_the_server),
    ("killed_again_and_again", kills::killed_again_and_again),
];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("e2e: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    // libtest's own options (--quiet and the like) are not ours.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let selected: Vec<&Case> =
        CASES.iter().filter(|(n, _)| wanted.is_empty() || wanted.iter().any(|w| n.contains(w))).collect();
    if selected.is_empty() {
        return Ok(());
    }
    let before = Snapshot::take();
    let mut cluster = Cluster::up(&binary(), "e2e")?;
    cluster.build_image(&debian::busybox()?, "test.local/busybox:1", &["--cmd", "/bin/sh"])?;
    let mut failed = Vec::new();
    for (name, case) in selected {
        let began = Instant::now();
        let outcome = case(&mut cluster);
        let seconds = began.elapsed().as_secs_f64();
        match outcome {
            Ok(()) => eprintln!("e2e {name}: ok ({seconds:.1} s)"),
            Err(error) => {
                eprintln!("e2e {name}: FAILED ({seconds:.1} s): {error:#}");
                eprintln!("{}", cluster.kubectl(&["get", "pods,events", "-A"]).unwrap_or_default());
                failed.push(*name);
            }
        }
    }
    cluster.down()?;
    let left = Snapshot::take().since(&before);
    if !left.is_empty() {
        bail!("left behind:\n  {}", left.join("\n  "));
    }
    if failed.is_empty() { Ok(()) } else { bail!("failed: {}", failed.join(", ")) }
}

/// The program that is tested; this variable names another build of it.
fn binary() -> PathBuf {
    std::env::var_os("CORTEN_TEST_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_corten").into(), PathBuf::from)
}

/// Makes a namespace for a case, empty even if an earlier run left it, and waits for its service account.
fn namespace(cluster: &Cluster, name: &str) -> Result<()> {
    cluster.kubectl(&["create", "namespace", name])?;
    cluster.kubectl(&["wait", "-n", name, "--for=create", "serviceaccount/default", "--timeout=20s"]).map(drop)
}

/// Fails with both texts unless `text` has `part`.
fn contains(text: &str, part: &str) -> Result<()> {
    if text.contains(part) { Ok(()) } else { bail!("expected {part:?} in:\n{text}") }
}

/// A manifest of a busybox pod that runs a shell script.
fn shell_pod(name: &str, script: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  \
         restartPolicy: Never\n  containers:\n  - name: main\n    image: test.local/busybox:1\n    command: [sh, -c, {}]\n",
        serde_json::Value::from(script)
    )
}

/// The value at a JSON path of an object.
fn jsonpath(cluster: &Cluster, namespace: &str, object: &str, path: &str) -> Result<String> {
    cluster.kubectl(&["get", "-n", namespace, object, "-o", &format!("jsonpath={{{path}}}")]).context(path.to_owned())
}
