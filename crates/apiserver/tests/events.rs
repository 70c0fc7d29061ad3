//! Events have a time to live; warnings of refused requests arrive.

#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod common;

use common::{Client, Fixture};
use futures::StreamExt as _;
use hyper::Method;

#[tokio::test]
async fn events_ttl_removes_events_an_hour_after_their_last_write() {
    let fixture = Fixture::start().await;
    let mut client = Client::connect(&fixture, true).await;
    let event = |name: &str| {
        format!(
            r#"{{"metadata":{{"name":"{name}"}},"involvedObject":{{"kind":"Pod","name":"p","namespace":"default"}},"reason":"R","type":"Normal"}}"#
        )
    };
    const EVENTS: &str = "/api/v1/namespaces/default/events";
    for name in ["old", "kept"] {
        let (code, made) = client.post(EVENTS, &event(name)).await;
        assert_eq!(code, 201, "{made}");
    }
    let api = fixture.admin();
    let mut changes = api
        .watch(corten_kinds::id::EVENT, corten_client::ListOptions::default(), fixture.cache.revision())
        .await
        .unwrap();
    fixture.clock.advance(40 * 60);
    let headers = [("content-type", "application/merge-patch+json")];
    let patched = client.send(Method::PATCH, &format!("{EVENTS}/kept"), &headers, br#"{"count":2}"#).await;
    assert_eq!(patched.status(), 200);
    fixture.clock.advance(21 * 60);
    loop {
        let change = changes.next().await.unwrap().unwrap();
        if change.kind == corten_client::WatchEventKind::Deleted {
            assert_eq!(change.object.unwrap().head.name.as_str(), "old");
            break;
        }
    }
    let (code, _) = client.get(&format!("{EVENTS}/kept"), &[]).await;
    assert_eq!(code, 200, "a write gives it another hour");
    let (code, _) = client.get("/apis/events.k8s.io/v1/namespaces/default/events/old", &[]).await;
    assert_eq!(code, 404);
}

#[tokio::test]
async fn warnings_are_kept_on_refused_requests() {
    let fixture = Fixture::start().await;
    let mut client = Client::connect(&fixture, true).await;
    let body = br#"{"metadata":{"name":"A"},"nonsense":1}"#;
    let response = client.send(Method::POST, "/api/v1/namespaces/default/configmaps", &[], body).await;
    assert_eq!(response.status(), 422);
    let warnings: Vec<&str> = response.headers().get_all("warning").iter().map(|w| w.to_str().unwrap()).collect();
    assert_eq!(warnings, [r#"299 - "unknown field \"nonsense\"""#]);
    let body = br#"{"metadata":{"name":"kube-root-ca.crt"},"data":{"a/b":""},"nonsense":1}"#;
    client.post("/api/v1/namespaces/default/configmaps", r#"{"metadata":{"name":"c"}}"#).await;
    let body = String::from_utf8_lossy(body).replace("kube-root-ca.crt", "c");
    let response = client.send(Method::PUT, "/api/v1/namespaces/default/configmaps/c", &[], body.as_bytes()).await;
    assert_eq!((response.status().as_u16(), response.headers().get_all("warning").iter().count()), (422, 1));
}

#[tokio::test]
async fn event_ttl_can_be_set() {
    let fixture = Fixture::with_config(corten_cache::CacheOptions::default(), |config, _| {
        config.event_ttl = Some(std::time::Duration::from_secs(10));
    })
    .await;
    let api = fixture.admin();
    let start = fixture.cache.revision();
    let mut client = Client::connect(&fixture, true).await;
    let event = r#"{"metadata":{"name":"e"},"involvedObject":{"kind":"Pod","name":"p","namespace":"default"},"reason":"R","type":"Normal"}"#;
    assert_eq!(client.post("/api/v1/namespaces/default/events", event).await.0, 201);
    let mut changes = api.watch(corten_kinds::id::EVENT, corten_client::ListOptions::default(), start).await.unwrap();
    fixture.clock.advance(11);
    let mut kinds = Vec::new();
    while kinds.len() < 2 {
        kinds.push(changes.next().await.unwrap().unwrap().kind);
    }
    assert_eq!(kinds[1], corten_client::WatchEventKind::Deleted);
}
