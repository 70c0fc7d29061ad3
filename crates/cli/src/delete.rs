//! `corten delete`.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, bail};
use clap::Args;
use corten_client::{collection_path, query_escape};
use corten_kinds::Kind;
use corten_tree::tree;
use futures::StreamExt as _;
use hyper::Method;

use crate::session::reference;
use crate::{Session, manifest};

/// Arguments of `delete`.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// What to delete: KIND NAME... or KIND/NAME...
    what: Vec<String>,
    /// Delete what these manifests name
    #[arg(short, long = "filename")]
    filename: Vec<PathBuf>,
    /// Only objects with these labels (with KIND alone)
    #[arg(short = 'l', long, default_value = "")]
    selector: String,
    /// Everything of the kind in the namespace (with KIND alone)
    #[arg(long)]
    all: bool,
    /// Seconds that a pod gets to end; 0 with --force kills at once
    #[arg(long)]
    grace_period: Option<i64>,
    /// Do not wait for the node to confirm
    #[arg(long)]
    force: bool,
    /// Wait until the objects are gone
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    wait: bool,
    /// Say nothing of what does not exist
    #[arg(long)]
    ignore_not_found: bool,
}

struct Doomed {
    kind: Arc<Kind>,
    collection: String,
    name: String,
}

pub(crate) async fn run(session: &Session, args: DeleteArgs) -> Result<u8> {
    let targets = targets(session, &args).await?;
    let mut body = tree!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"});
    if let Some(seconds) = if args.force { Some(args.grace_period.unwrap_or(0)) } else { args.grace_period } {
        body.insert("gracePeriodSeconds", seconds);
    }
    let (mut failed, mut waiting) = (false, Vec::new());
    for doomed in targets {
        let path = format!("{}/{}", doomed.collection, doomed.name);
        let what = reference(&doomed.kind, &doomed.name);
        match session.client.json(Method::DELETE, &path, "application/json", Some(&body)).await {
            Ok(answer) => {
                println!("{what} deleted");
                let uid = [answer.str_at("metadata.uid"), answer.str_at("details.uid")].concat();
                waiting.push((doomed, uid));
            }
            Err(status) if status.is_not_found() && args.ignore_not_found => {}
            Err(status) => {
                eprintln!("error: {status}");
                failed = true;
            }
        }
    }
    if args.wait {
        for (doomed, uid) in waiting {
            gone(session, &doomed, &uid).await?;
        }
    }
    Ok(u8::from(failed))
}

async fn targets(session: &Session, args: &DeleteArgs) -> Result<Vec<Doomed>> {
    if !args.filename.is_empty() {
        let manifests = manifest::read(session, &args.filename)?;
        let doom = |m: manifest::Manifest| Doomed {
            collection: collection_path(&m.kind, &m.namespace),
            kind: m.kind,
            name: m.name,
        };
        return Ok(manifests.into_iter().map(doom).collect());
    }
    let named = session.targets(&args.what)?;
    let doom =
        |kind: Arc<Kind>, name: String| Doomed { collection: collection_path(&kind, &session.namespace), kind, name };
    if !named.is_empty() {
        return Ok(named.into_iter().map(|(kind, name)| doom(kind, name)).collect());
    }
    if !args.all && args.selector.is_empty() {
        bail!("resource(s) were provided, but no name was specified: name them, or use -l SELECTOR or --all");
    }
    let kind = session.kind(&args.what[0])?;
    let path = collection_path(&kind, &session.namespace);
    let path = format!("{path}?labelSelector={}", query_escape(&args.selector));
    let list = session.client.json(Method::GET, &path, "", None).await?;
    Ok(list.list_at("items").iter().map(|o| doom(kind.clone(), o.str_at("metadata.name").into())).collect())
}

/// Waits until the object of this uid is gone.
async fn gone(session: &Session, doomed: &Doomed, uid: &str) -> Result<()> {
    let query = query_escape(&format!("metadata.name={}", doomed.name));
    let path = format!("{}?fieldSelector={query}", doomed.collection);
    let list = session.client.json(Method::GET, &path, "", None).await?;
    let same = |o: &corten_tree::Tree| uid.is_empty() || o.str_at("metadata.uid") == uid;
    if !list.list_at("items").iter().any(same) {
        return Ok(());
    }
    let revision = list.str_at("metadata.resourceVersion");
    let mut events =
        session.client.lines(&format!("{path}&watch=true&resourceVersion={revision}"), "application/json").await?;
    while let Some(event) = events.next().await {
        if event?.str_at("type") == "DELETED" {
            return Ok(());
        }
    }
    Ok(())
}
