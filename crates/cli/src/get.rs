//! `corten get`.

use std::io::Write as _;

use anyhow::{Result, bail};
use clap::Args;
use corten_client::{collection_path, query_escape};
use corten_kinds::Kind;
use corten_tree::{Tree, tree};
use futures::StreamExt as _;
use hyper::Method;

use crate::print::Printer;
use crate::session::reference;
use crate::{Session, yaml};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// Arguments of `get`.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// What to show: KIND, KIND NAME..., KIND/NAME..., or several kinds as KIND,KIND
    #[arg(required = true)]
    what: Vec<String>,
    /// All namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Only objects with these labels, as app=web,tier!=db
    #[arg(short = 'l', long, default_value = "")]
    selector: String,
    /// Only objects with these fields, as status.phase=Running
    #[arg(long, default_value = "")]
    field_selector: String,
    /// wide, yaml, json or name
    #[arg(short, long, default_value = "")]
    output: String,
    /// Go on showing changes
    #[arg(short, long)]
    watch: bool,
    /// No headings
    #[arg(long)]
    no_headers: bool,
}

pub(crate) async fn run(session: &Session, args: GetArgs) -> Result<u8> {
    if !["", "wide", "yaml", "json", "name"].contains(&args.output.as_str()) {
        bail!("unknown output format {:?}: use wide, yaml, json or name", args.output);
    }
    let kinds: Vec<_> = match args.what[0].contains('/') {
        true => Vec::new(),
        false => args.what[0].split(',').map(|k| session.kind(k)).collect::<Result<_>>()?,
    };
    let mut paths = Vec::new();
    if kinds.is_empty() || args.what.len() > 1 {
        for (kind, name) in session.targets(&args.what)? {
            let path = session.object_path(&kind, &name);
            paths.push((kind, path));
        }
    } else {
        for kind in kinds {
            let namespace = if args.all_namespaces { "" } else { &session.namespace };
            let path = with_selectors(collection_path(&kind, namespace), &args);
            paths.push((kind, path));
        }
    }
    if args.watch {
        let [(kind, path)] = paths.as_slice() else {
            bail!("you may only specify a single resource type with --watch")
        };
        return watch(session, &args, kind, path).await;
    }
    match args.output.as_str() {
        "" | "wide" => tables(session, &args, &paths).await,
        _ => whole(session, &args, &paths).await,
    }
}

fn with_selectors(path: String, args: &GetArgs) -> String {
    format!(
        "{path}?labelSelector={}&fieldSelector={}",
        query_escape(&args.selector),
        query_escape(&args.field_selector)
    )
}

async fn tables(session: &Session, args: &GetArgs, paths: &[(std::sync::Arc<Kind>, String)]) -> Result<u8> {
    let mut empty = true;
    for (i, (kind, path)) in paths.iter().enumerate() {
        let mut table = session.client.json_as(Method::GET, path, "", None, TABLE).await?;
        if table.list_at("rows").is_empty() {
            continue;
        }
        if paths.len() > 1 {
            qualify(&mut table, kind);
        }
        let mut printer = Printer::default();
        printer.add(&table, args.output == "wide", args.all_namespaces, !args.no_headers);
        if i > 0 && !empty && !args.no_headers {
            println!();
        }
        print!("{}", printer.take());
        empty = false;
    }
    if empty {
        let place = if args.all_namespaces { String::new() } else { format!(" in {} namespace", session.namespace) };
        eprintln!("No resources found{place}.");
    }
    Ok(0)
}

/// With several kinds, names say their kind.
fn qualify(table: &mut Tree, kind: &Kind) {
    for row in table.get_mut("rows").and_then(Tree::as_list_mut).into_iter().flatten() {
        if let Some(Tree::Str(name)) = row.get_mut("cells").and_then(Tree::as_list_mut).and_then(|c| c.first_mut()) {
            *name = reference(kind, name);
        }
    }
}

async fn whole(session: &Session, args: &GetArgs, paths: &[(std::sync::Arc<Kind>, String)]) -> Result<u8> {
    let mut objects = Vec::new();
    for (kind, path) in paths {
        let answer = session.client.json(Method::GET, path, "", None).await?;
        if answer.get("items").is_none() {
            objects.push((kind, answer));
            continue;
        }
        for mut item in answer.list_at("items").iter().cloned() {
            let mut head = tree!({"apiVersion": (kind.api_version()), "kind": (&kind.kind)});
            item.make_map().retain(|k, _| k != "apiVersion" && k != "kind");
            if let Tree::Map(fields) = item {
                fields.into_iter().for_each(|(key, value)| head.insert(key, value));
            }
            objects.push((kind, head));
        }
    }
    let single = objects.len() == 1 && args.what.len() > 1 || args.what[0].contains('/');
    let shown = match (single, objects.len()) {
        (true, 1) => objects[0].1.clone(),
        _ => {
            tree!({"apiVersion": "v1", "kind": "List", "items": (objects.iter().map(|(_, o)| o.clone()).collect::<Vec<_>>())})
        }
    };
    match args.output.as_str() {
        "name" => objects.iter().for_each(|(kind, o)| println!("{}", reference(kind, o.str_at("metadata.name")))),
        "json" => println!(
            "{}",
            serde_json::to_string_pretty(&serde_json::from_slice::<serde_json::Value>(&shown.to_json())?)?
        ),
        _ => print!("{}", yaml::print(&shown)?),
    }
    Ok(0)
}

async fn watch(session: &Session, args: &GetArgs, kind: &Kind, path: &str) -> Result<u8> {
    // A single object is watched through its collection.
    let path = match path.split_once('?') {
        Some(_) => path.to_owned(),
        None => {
            let (collection, name) = path.rsplit_once('/').unwrap_or((path, ""));
            format!("{collection}?fieldSelector={}", query_escape(&format!("metadata.name={name}")))
        }
    };
    let table = session.client.json_as(Method::GET, &path, "", None, TABLE).await?;
    let wide = args.output == "wide";
    let mut printer = Printer::default();
    printer.add(&table, wide, args.all_namespaces, !args.no_headers);
    print!("{}", printer.take());
    let revision = table.str_at("metadata.resourceVersion");
    let mut events = session.client.lines(&format!("{path}&watch=true&resourceVersion={revision}"), TABLE).await?;
    while let Some(event) = events.next().await {
        let event = event?;
        if event.str_at("type") == "ERROR" {
            bail!("{}: {}", kind.plural, event.str_at("object.message"));
        }
        let table = event.get("object").cloned().unwrap_or_default();
        printer.add(&table, wide, args.all_namespaces, false);
        print!("{}", printer.take());
        std::io::stdout().flush()?;
    }
    Ok(0)
}
