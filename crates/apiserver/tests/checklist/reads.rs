//! Selectors, revisions of lists, bookmarks.

use corten_tree::{json, tree};
use http_body_util::BodyExt as _;
use hyper::Method;

use super::{MAPS, names};
use crate::common::caller::Caller;
use crate::common::{Client, Fixture};

#[tokio::test]
async fn label_selectors_of_every_operator() {
    let fixture = Fixture::start().await;
    let mut admin = Caller::admin(&fixture).await;
    for (name, labels) in [
        ("a", tree!({"tier": "web", "size": "3"})),
        ("b", tree!({"tier": "db", "size": "10"})),
        ("c", tree!({"size": "x"})),
        ("d", tree!({"tier": ""})),
    ] {
        assert_eq!(admin.post(MAPS, &tree!({"metadata": {"name": name, "labels": labels}})).await.0, 201);
    }
    for (selector, wanted) in [
        ("tier%3Dweb", vec!["a"]),
        ("tier%3D%3Dweb", vec!["a"]),
        ("tier!%3Dweb", vec!["b", "c", "d"]),
        ("tier+in+(web,db)", vec!["a", "b"]),
        ("tier+notin+(web,db)", vec!["c", "d"]),
        ("tier", vec!["a", "b", "d"]),
        ("!tier", vec!["c"]),
        ("tier%3D", vec!["d"]),
        ("size%3E3", vec!["b"]),
        ("size%3C4", vec!["a"]),
        ("tier,size%3D3", vec!["a"]),
    ] {
        let (code, list) = admin.get(&format!("{MAPS}?labelSelector={selector}")).await;
        assert_eq!((code, names(&list)), (200, wanted), "{selector}");
    }
}

#[tokio::test]
async fn field_selectors_of_pods_and_of_metadata() {
    let fixture = Fixture::start().await;
    let mut admin = Caller::admin(&fixture).await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    assert_eq!(admin.post(accounts, &tree!({"metadata": {"name": "default"}})).await.0, 201);
    let pods = "/api/v1/namespaces/default/pods";
    for (name, node, policy) in [("p", "n1", "Always"), ("q", "n2", "Never")] {
        let pod = tree!({"metadata": {"name": name}, "spec": {"nodeName": node, "restartPolicy": policy,
            "containers": [{"name": "c", "image": "i"}]}});
        assert_eq!(admin.post(pods, &pod).await.0, 201);
    }
    for (selector, wanted) in [
        ("metadata.name%3Dp", vec!["p"]),
        ("metadata.name!%3Dp", vec!["q"]),
        ("metadata.namespace%3Ddefault", vec!["p", "q"]),
        ("spec.nodeName%3Dn2", vec!["q"]),
        ("spec.restartPolicy%3DNever", vec!["q"]),
        ("status.phase%3DPending,spec.nodeName%3Dn1", vec!["p"]),
        ("spec.serviceAccountName%3Ddefault", vec!["p", "q"]),
    ] {
        let (code, list) = admin.get(&format!("{pods}?fieldSelector={selector}")).await;
        assert_eq!((code, names(&list)), (200, wanted), "{selector}");
    }
}

#[tokio::test]
async fn resource_versions_are_comparable_numbers_over_all_kinds() {
    let fixture = Fixture::start().await;
    let mut admin = Caller::admin(&fixture).await;
    let mut last = 0;
    for collection in [MAPS, "/api/v1/namespaces/default/secrets", "/api/v1/namespaces", MAPS] {
        let (code, made) = admin.post(collection, &tree!({"metadata": {"generateName": "x-"}})).await;
        assert_eq!(code, 201, "{made}");
        let revision: u64 = made.str_at("metadata.resourceVersion").parse().unwrap();
        assert!(revision > last, "{revision} comes after {last}");
        let (_, list) = admin.get(collection).await;
        assert!(list.str_at("metadata.resourceVersion").parse::<u64>().unwrap() >= revision);
        last = revision;
    }
}

#[tokio::test]
async fn resource_version_match_exact_not_older_than_and_any() {
    let fixture = Fixture::start().await;
    let (mut admin, mut other) = (Caller::admin(&fixture).await, Caller::admin(&fixture).await);
    let map = |name: &str| tree!({"metadata": {"name": name}});
    assert_eq!(admin.post(MAPS, &map("one")).await.0, 201);
    let (_, list) = admin.get(MAPS).await;
    let then = list.str_at("metadata.resourceVersion").to_owned();
    assert_eq!(admin.post(MAPS, &map("two")).await.0, 201);
    assert_eq!(admin.delete(&format!("{MAPS}/one")).await.0, 200);
    // A consistent read: whoever asks sees what anybody was told is written.
    assert_eq!(names(&other.get(MAPS).await.1), ["two"]);
    // A snapshot: the list as it was, and where it goes on.
    let exact = format!("{MAPS}?resourceVersion={then}&resourceVersionMatch=Exact");
    let (code, snapshot) = other.get(&exact).await;
    assert_eq!((code, names(&snapshot), snapshot.str_at("metadata.resourceVersion")), (200, vec!["one"], &*then));
    let newer = format!("{MAPS}?resourceVersion={then}&resourceVersionMatch=NotOlderThan");
    assert_eq!(names(&other.get(&newer).await.1), ["two"]);
    let any = other.get(&format!("{MAPS}?resourceVersion=0")).await;
    assert_eq!((any.0, names(&any.1)), (200, vec!["two"]));
    let paged = other.get(&format!("{exact}&limit=1")).await.1;
    assert_eq!((names(&paged), paged.str_at("metadata.continue")), (vec!["one"], ""));
    let (code, status) = other.get(&format!("{MAPS}?resourceVersionMatch=Exact")).await;
    assert_eq!(code, 422);
    assert!(status.str_at("message").contains("resourceVersionMatch is forbidden unless resourceVersion is provided"));
}

#[tokio::test]
async fn watch_bookmarks_come_every_minute_and_at_the_end() {
    let fixture = Fixture::start().await;
    let mut writer = Client::connect(&fixture, true).await;
    let mut client = Client::connect(&fixture, true).await;
    let (_, list) = writer.get(MAPS, &[]).await;
    let from = list.str_at("metadata.resourceVersion").to_owned();
    let path = format!("{MAPS}?watch=1&allowWatchBookmarks=true&timeoutSeconds=100&resourceVersion={from}");
    let mut body = client.send(Method::GET, &path, &[], b"").await.into_body();
    // Something of another kind moves the revision on; the quiet watch learns it by a bookmark.
    let (_, made) = writer.post("/api/v1/namespaces/default/secrets", r#"{"metadata":{"name":"s"}}"#).await;
    let mut seen = Vec::new();
    for seconds in [61, 40] {
        fixture.clock.advance(seconds);
        let Some(frame) = body.frame().await else { break };
        let event = json::parse(&frame.unwrap().into_data().unwrap()).unwrap();
        assert_eq!((event.str_at("type"), event.str_at("object.kind")), ("BOOKMARK", "ConfigMap"), "{event}");
        seen.push(event.str_at("object.metadata.resourceVersion").parse::<u64>().unwrap());
    }
    assert!(seen[0] >= made.str_at("metadata.resourceVersion").parse().unwrap(), "{seen:?} {made}");
    while let Some(frame) = body.frame().await {
        frame.unwrap();
    }
}

#[tokio::test]
async fn tables_of_watches_have_columns_once_and_hold_what_is_asked_for() {
    let fixture = Fixture::start().await;
    let mut writer = Client::connect(&fixture, true).await;
    let mut client = Client::connect(&fixture, true).await;
    assert_eq!(writer.post(MAPS, r#"{"metadata":{"name":"one"},"data":{"k":"v"}}"#).await.0, 201);
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    for (include, kind, data) in [("Object", "ConfigMap", true), ("Metadata", "PartialObjectMetadata", false)] {
        let (_, found) = client.get(&format!("{MAPS}?includeObject={include}"), &table).await;
        let object = found.list_at("rows")[0].get("object").unwrap();
        assert_eq!((object.str_at("kind"), object.get("data").is_some()), (kind, data), "{include}");
    }
    let (_, none) = client.get(&format!("{MAPS}?includeObject=None"), &table).await;
    assert!(none.list_at("rows")[0].get("object").is_none_or(corten_tree::Tree::is_null), "{none}");
    let mut body = client.send(Method::GET, &format!("{MAPS}?watch=1"), &table, b"").await.into_body();
    assert_eq!(writer.post(MAPS, r#"{"metadata":{"name":"two"}}"#).await.0, 201);
    let mut text = String::new();
    while text.lines().count() < 2 {
        text.push_str(&String::from_utf8_lossy(&body.frame().await.unwrap().unwrap().into_data().unwrap()));
    }
    let events: Vec<_> = text.lines().map(|line| json::parse(line.as_bytes()).unwrap()).collect();
    let columns: Vec<usize> = events.iter().map(|e| e.list_at("object.columnDefinitions").len()).collect();
    assert_eq!(columns, [3, 0], "{text}");
    assert_eq!(events[1].list_at("object.rows")[0].list_at("cells")[0].as_str(), Some("two"));
}

#[tokio::test]
async fn statusz_as_text_and_structured() {
    let fixture = Fixture::start().await;
    let mut client = Client::connect(&fixture, true).await;
    fixture.clock.advance(3661);
    let response = client.send(Method::GET, "/statusz", &[], b"").await;
    assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
    let text = String::from_utf8_lossy(&response.into_body().collect().await.unwrap().to_bytes()).into_owned();
    for part in [
        "\napiserver statusz\nWarning: ",
        "Up: 1 hr 01 min 0",
        "Binary version: 1.37.2",
        "Paths: /flagz /healthz /livez /metrics",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    for (version, warnings) in [("v1beta1", 0), ("v1alpha1", 1)] {
        let accept = format!("application/json;as=Statusz;v={version};g=config.k8s.io");
        let response = client.send(Method::GET, "/statusz", &[("accept", &accept)], b"").await;
        assert_eq!(response.headers().get_all("warning").iter().count(), warnings);
        let found = json::parse(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
        assert_eq!(
            (found.str_at("kind"), found.str_at("apiVersion")),
            ("Statusz", &*format!("config.k8s.io/{version}"))
        );
        assert!(
            found.i64_at("uptimeSeconds").unwrap() >= 3661 && found.str_at("emulationVersion") == "1.37",
            "{found}"
        );
    }
    for page in ["statusz", "flagz"] {
        let kind = if page == "statusz" { "Statusz" } else { "Flagz" };
        let accept = format!("application/yaml;as={kind};v=v1beta1;g=config.k8s.io");
        let response = client.send(Method::GET, &format!("/{page}"), &[("accept", &accept)], b"").await;
        assert_eq!(response.headers()["content-type"], "application/yaml", "{page}");
        let text = String::from_utf8_lossy(&response.into_body().collect().await.unwrap().to_bytes()).into_owned();
        assert!(
            text.starts_with("apiVersion: config.k8s.io/v1beta1\n") && text.contains(&format!("kind: {kind}\n")),
            "{text}"
        );
    }
    let flagz = client.get("/flagz", &[]).await.1;
    assert!(flagz.as_str().unwrap().starts_with("\napiserver flagz\nWarning: "), "{flagz}");
    assert_eq!(client.get("/statusz", &[("accept", "application/json")]).await.0, 406);
    let nobody = [("authorization", "Bearer secret-token")];
    assert_eq!(Client::connect(&fixture, false).await.get("/statusz", &nobody).await.0, 403);
}
