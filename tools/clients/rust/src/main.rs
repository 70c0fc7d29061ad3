//! A controller of kube-rs, against the cluster of KUBECONFIG: for each `KubersBundle` it keeps `spec.copies` ConfigMaps with
//! `spec.value`, says so in the status, and leaves a note when the bundle goes. `cargo xtask clients` checks it from outside. The argument
//! is the name that it writes under.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ListParams, Patch, PatchParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::finalizer::{Event, finalizer};
use kube::runtime::watcher;
use kube::{Api, Client, CustomResource, Resource as _, ResourceExt as _};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// What the server stores as the writer of our fields.
const MANAGER: &str = "kubers";
/// The annotation that tells who wrote a ConfigMap.
const WRITER: &str = "clients.corten.dev/by";
const FINALIZER: &str = "clients.corten.dev/guard";
/// The label that ties a ConfigMap to its bundle.
const OWNED: &str = "clients.corten.dev/bundle";

/// The kind's own fields.
#[derive(CustomResource, Serialize, Deserialize, Debug, Clone)]
#[kube(group = "clients.corten.dev", version = "v1", kind = "KubersBundle", namespaced)]
#[kube(status = "BundleStatus", schema = "disabled")]
struct BundleSpec {
    value: String,
    copies: i32,
}

#[derive(Serialize, Deserialize, Debug, Clone, Default)]
#[serde(rename_all = "camelCase")]
struct BundleStatus {
    copies: i32,
    observed_generation: i64,
}

#[derive(Debug)]
struct Failed(String);

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failed {}

impl From<kube::Error> for Failed {
    fn from(error: kube::Error) -> Failed {
        Failed(error.to_string())
    }
}

/// A ConfigMap by server-side apply.
fn config_map(metadata: ObjectMeta, value: &str) -> ConfigMap {
    let data = BTreeMap::from([("value".to_owned(), value.to_owned())]);
    ConfigMap { metadata, data: Some(data), ..ConfigMap::default() }
}

async fn apply(bundle: Arc<KubersBundle>, client: Client, namespace: &str) -> Result<Action, Failed> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let parameters = PatchParams::apply(MANAGER).force();
    let wanted: Vec<String> = (0..bundle.spec.copies).map(|i| format!("{}-{i}", bundle.name_any())).collect();
    for name in &wanted {
        let metadata = ObjectMeta {
            name: Some(name.clone()),
            labels: Some(BTreeMap::from([(OWNED.to_owned(), bundle.name_any())])),
            annotations: std::env::args().nth(1).map(|name| BTreeMap::from([(WRITER.to_owned(), name)])),
            owner_references: bundle.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        };
        maps.patch(name, &parameters, &Patch::Apply(config_map(metadata, &bundle.spec.value))).await?;
    }
    let owned = ListParams::default().labels(&format!("{OWNED}={}", bundle.name_any()));
    for extra in maps.list(&owned).await?.iter().map(|m| m.name_any()).filter(|n| !wanted.contains(n)) {
        maps.delete(&extra, &Default::default()).await?;
    }
    let status =
        BundleStatus { copies: bundle.spec.copies, observed_generation: bundle.meta().generation.unwrap_or(0) };
    let bundles: Api<KubersBundle> = Api::namespaced(client, namespace);
    bundles.patch_status(&bundle.name_any(), &PatchParams::default(), &Patch::Merge(json!({"status": status}))).await?;
    Ok(Action::await_change())
}

async fn clean_up(bundle: Arc<KubersBundle>, client: Client, namespace: &str) -> Result<Action, Failed> {
    let maps: Api<ConfigMap> = Api::namespaced(client, namespace);
    let name = format!("{}-goodbye", bundle.name_any());
    let note = config_map(ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() }, "cleaned up");
    maps.patch(&name, &PatchParams::apply(MANAGER), &Patch::Apply(note)).await?;
    Ok(Action::await_change())
}

async fn reconcile(bundle: Arc<KubersBundle>, client: Arc<Client>) -> Result<Action, Failed> {
    let client = (*client).clone();
    let namespace = bundle.namespace().unwrap_or_default();
    let bundles: Api<KubersBundle> = Api::namespaced(client.clone(), &namespace);
    let outcome = finalizer(&bundles, FINALIZER, bundle, |event| async {
        match event {
            Event::Apply(bundle) => apply(bundle, client.clone(), &namespace).await,
            Event::Cleanup(bundle) => clean_up(bundle, client.clone(), &namespace).await,
        }
    });
    outcome.await.map_err(|error| Failed(error.to_string()))
}

fn again(bundle: Arc<KubersBundle>, error: &Failed, _: Arc<Client>) -> Action {
    eprintln!("kubers: {}: {error}", bundle.name_any());
    Action::requeue(Duration::from_secs(1))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let client = Client::try_default().await?;
    let bundles: Api<KubersBundle> = Api::all(client.clone());
    let maps: Api<ConfigMap> = Api::all(client.clone());
    // The streaming list of a watch's beginning, which newer clients ask for.
    let config = watcher::Config::default().streaming_lists();
    Controller::new(bundles, config)
        .owns(maps, watcher::Config::default().labels(OWNED))
        .shutdown_on_signal()
        .run(reconcile, again, Arc::new(client))
        .for_each(|outcome| async move {
            match outcome {
                Ok((bundle, _)) => println!("kubers: {}", bundle.name),
                Err(error) => eprintln!("kubers: {error}"),
            }
        })
        .await;
    Ok(())
}
