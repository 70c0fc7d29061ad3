//! `corten logs`.

use std::io::Write as _;

use anyhow::{Result, anyhow, bail};
use bytes::Bytes;
use clap::Args;
use corten_client::{collection_path, http, query_escape};
use futures::StreamExt as _;
use hyper::Method;

use crate::Session;

/// Arguments of `logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// POD, or KIND/NAME of a workload (its first pod)
    pod: String,
    /// Go on as lines come
    #[arg(short, long)]
    follow: bool,
    /// The container; needed if the pod has several
    #[arg(short, long, default_value = "")]
    container: String,
    /// Of the instance before this one
    #[arg(short, long)]
    previous: bool,
    /// Only so many last lines
    #[arg(long)]
    tail: Option<u64>,
    /// Only lines younger than this, in seconds
    #[arg(long)]
    since_seconds: Option<u64>,
    /// Lines begin with their time
    #[arg(long)]
    timestamps: bool,
}

pub(crate) async fn run(session: &Session, args: LogsArgs) -> Result<u8> {
    let pod = pod_name(session, &args.pod).await?;
    let pods = session.kind("pods")?;
    let mut path = format!("{}/log?container={}", session.object_path(&pods, &pod), query_escape(&args.container));
    path.push_str(&format!("&follow={}&previous={}&timestamps={}", args.follow, args.previous, args.timestamps));
    if let Some(lines) = args.tail {
        path.push_str(&format!("&tailLines={lines}"));
    }
    if let Some(seconds) = args.since_seconds {
        path.push_str(&format!("&sinceSeconds={seconds}"));
    }
    let answer = session.client.send(Method::GET, &path, &[], Bytes::new()).await?;
    let mut stream = http::byte_stream(answer);
    let mut out = std::io::stdout();
    while let Some(bytes) = stream.next().await {
        out.write_all(&bytes?)?;
        out.flush()?;
    }
    Ok(0)
}

/// A pod's name from a pod or a workload.
pub(crate) async fn pod_name(session: &Session, text: &str) -> Result<String> {
    let (kind, name) = session.kind_and_name(text, Some("pods"))?;
    if &*kind.plural == "pods" {
        return Ok(name);
    }
    let object = session.client.json(Method::GET, &session.object_path(&kind, &name), "", None).await?;
    let selector = corten_object::LabelSelector::from_tree(object.path("spec.selector")).map_err(|e| anyhow!(e))?;
    if selector.is_nothing() || selector.is_everything() {
        bail!("{text} selects no pods");
    }
    let pods = collection_path(&*session.kind("pods")?, &session.namespace);
    let path = format!("{pods}?labelSelector={}", query_escape(&selector.to_string()));
    let list = session.client.json(Method::GET, &path, "", None).await?;
    let first = list.list_at("items").first().map(|p| p.str_at("metadata.name").to_owned());
    first.ok_or_else(|| anyhow!("{text} has no pods"))
}
