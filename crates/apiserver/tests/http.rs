//! The server over TLS: authentication, forms, lists in pages, watches, discovery, streams.

#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod common;

use common::{Client, Fixture};
use corten_tree::Tree;
use http_body_util::BodyExt;
use hyper::Method;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn nobody_sees_health_and_version_only() {
    let fixture = Fixture::start().await;
    let mut nobody = Client::connect(&fixture, false).await;
    assert_eq!(nobody.get("/healthz", &[]).await, (200, Tree::from("ok")));
    assert_eq!(nobody.get("/version", &[]).await.1.str_at("gitVersion"), corten_apiserver::VERSION);
    let (code, status) = nobody.get("/api/v1/pods", &[]).await;
    assert_eq!(code, 403);
    assert!(status.str_at("message").contains("User \"system:anonymous\" cannot list resource \"pods\""));
    assert_eq!(nobody.get("/api/v1/pods", &[("authorization", "Bearer wrong")]).await.0, 401);
    let alice = [("authorization", "Bearer secret-token")];
    let (code, status) = nobody.get("/api/v1/pods", &alice).await;
    assert_eq!((code, status.str_at("message").contains("User \"alice\"")), (403, true));
    assert_eq!(nobody.get("/apis", &alice).await.0, 200);
}

#[tokio::test]
async fn lists_come_in_pages_of_one_revision() {
    let fixture = Fixture::start().await;
    let mut client = Client::connect(&fixture, true).await;
    for i in 0..5 {
        let body = format!(r#"{{"metadata":{{"name":"m{i}"}}}}"#);
        assert_eq!(client.post(MAPS, &body).await.0, 201);
    }
    let (_, first) = client.get(&format!("{MAPS}?limit=2"), &[]).await;
    assert_eq!((first.list_at("items").len(), first.i64_at("metadata.remainingItemCount")), (2, Some(3)));
    client.send(Method::DELETE, &format!("{MAPS}/m3"), &[], b"").await.into_body().collect().await.unwrap();
    let token = first.str_at("metadata.continue");
    let (_, second) = client.get(&format!("{MAPS}?limit=10&continue={token}"), &[]).await;
    let names: Vec<&str> = second.list_at("items").iter().map(|i| i.str_at("metadata.name")).collect();
    assert_eq!(names, ["m2", "m3", "m4"], "what was deleted since is still in the list");
    assert_eq!(second.str_at("metadata.resourceVersion"), first.str_at("metadata.resourceVersion"));
    let (_, selected) = client.get(&format!("{MAPS}?fieldSelector=metadata.name%3Dm1"), &[]).await;
    assert_eq!(selected.list_at("items").len(), 1);
    assert_eq!(client.get(&format!("{MAPS}?fieldSelector=spec.x%3Dm1"), &[]).await.0, 400);
    assert_eq!(client.get(&format!("{MAPS}?resourceVersion=999999"), &[]).await.0, 504);
}

#[tokio::test]
async fn tables_metadata_yaml_and_warnings() {
    let fixture = Fixture::start().await;
    let mut client = Client::connect(&fixture, true).await;
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")];
    let (_, table) = client.get("/api/v1/namespaces", &table).await;
    assert_eq!(table.str_at("kind"), "Table");
    assert_eq!(table.list_at("columnDefinitions")[0].str_at("name"), "Name");
    assert_eq!(table.list_at("rows").len(), 4);
    assert_eq!(table.list_at("rows")[0].str_at("object.kind"), "PartialObjectMetadata");
    let partial = [("accept", "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io")];
    let (_, partial) = client.get("/api/v1/namespaces", &partial).await;
    assert_eq!(partial.str_at("kind"), "PartialObjectMetadataList");
    let yaml = [("content-type", "application/yaml")];
    let body = b"metadata:\n  name: yaml\nnonsense: 1\n";
    let response = client.send(Method::POST, MAPS, &yaml, body).await;
    let warnings: Vec<&str> = response.headers().get_all("warning").iter().map(|w| w.to_str().unwrap()).collect();
    assert_eq!((response.status().as_u16(), warnings), (201, vec!["299 - \"unknown field \\\"nonsense\\\"\""]));
    response.into_body().collect().await.unwrap();
    let text = [("accept", "text/html")];
    assert_eq!(client.get("/api/v1/namespaces", &text).await.0, 406);
}

#[tokio::test]
async fn protobuf_in_and_out() {
    let fixture = Fixture::start().await;
    let mut client = Client::connect(&fixture, true).await;
    let schema = corten_schema::builtin();
    let ty = schema.gvk("", "v1", "ConfigMap").unwrap();
    let tree =
        corten_tree::json::parse(br#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"p"},"data":{"a":"b"}}"#)
            .unwrap();
    let body = corten_schema::protobuf::encode_object(schema, ty, &tree);
    let pb = "application/vnd.kubernetes.protobuf";
    let response = client.send(Method::POST, MAPS, &[("content-type", pb), ("accept", pb)], &body).await;
    assert_eq!(response.status().as_u16(), 201);
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let (_, answer) = corten_schema::protobuf::decode_object(schema, &bytes).unwrap();
    assert_eq!(answer.str_at("data.a"), "b");
    let response = client.send(Method::GET, MAPS, &[("accept", pb)], b"").await;
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let (_, list) = corten_schema::protobuf::decode_object(schema, &bytes).unwrap();
    assert_eq!(list.list_at("items").len(), 1);
}

#[tokio::test]
async fn a_list_in_protobuf_is_the_list_in_json() {
    let fixture = Fixture::start().await;
    let mut client = Client::connect(&fixture, true).await;
    let schema = corten_schema::builtin();
    let list = schema.gvk("", "v1", "ConfigMapList").unwrap();
    let pb = "application/vnd.kubernetes.protobuf";
    for name in ["a", "b"] {
        let body = format!(r#"{{"metadata":{{"name":"{name}"}},"data":{{"text":"{}"}}}}"#, "x".repeat(1000));
        assert_eq!(client.post(MAPS, &body).await.0, 201);
    }
    // Each time as it is now: messages are kept between the lists.
    for round in 0..4 {
        let path = if round == 3 { format!("{MAPS}?limit=1") } else { MAPS.to_owned() };
        let mut bodies = Vec::new();
        for accept in ["application/json", pb] {
            let response = client.send(Method::GET, &path, &[("accept", accept)], b"").await;
            assert_eq!(
                (response.status().as_u16(), &response.headers()["content-type"]),
                (200, &accept.parse().unwrap())
            );
            bodies.push(response.into_body().collect().await.unwrap().to_bytes());
        }
        let tree = corten_tree::json::parse(&bodies[0]).unwrap();
        let expected = corten_schema::protobuf::encode_object(schema, list, &tree);
        assert!(bodies[1] == expected, "round {round}: {tree}");
        if round == 1 {
            let patch = [("content-type", "application/merge-patch+json")];
            let path = format!("{MAPS}/b");
            let response = client.send(Method::PATCH, &path, &patch, br#"{"data":{"more":"1"}}"#).await;
            assert_eq!(response.into_body().collect().await.map(drop).ok(), Some(()));
        }
    }
    // A watch that begins with the state sends the same messages.
    let path = format!("{MAPS}?watch=true&resourceVersion=0&timeoutSeconds=60");
    let mut body = client.send(Method::GET, &path, &[("accept", pb)], b"").await.into_body();
    let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
    let (length, rest) = frame.split_at(4);
    let event = &rest[..u32::from_be_bytes(length.try_into().unwrap()) as usize];
    assert!(event.starts_with(b"\x0a\x05ADDED\x12"), "{event:?}");
    let at = event.windows(4).position(|four| four == b"k8s\0").unwrap();
    let (_, object) = corten_schema::protobuf::decode_object(schema, &event[at..]).unwrap();
    assert_eq!(object.str_at("metadata.name"), "a");
}

#[tokio::test]
async fn a_streamed_list_then_changes() {
    let fixture = Fixture::start().await;
    let mut client = Client::connect(&fixture, true).await;
    let mut writer = Client::connect(&fixture, true).await;
    assert_eq!(writer.post(MAPS, r#"{"metadata":{"name":"one"}}"#).await.0, 201);
    let path = format!(
        "{MAPS}?watch=true&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&timeoutSeconds=60"
    );
    let mut body = client.send(Method::GET, &path, &[], b"").await.into_body();
    let mut text = String::new();
    while !text.contains("initial-events-end") {
        text.push_str(&String::from_utf8_lossy(&body.frame().await.unwrap().unwrap().into_data().unwrap()));
    }
    assert!(
        text.starts_with(r#"{"type":"ADDED","object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"one""#),
        "{text}"
    );
    writer.send(Method::DELETE, &format!("{MAPS}/one"), &[], b"").await.into_body().collect().await.unwrap();
    let event = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(event.starts_with(br#"{"type":"DELETED","object":{"kind":"ConfigMap""#), "{event:?}");
}

#[tokio::test]
async fn discovery_and_openapi() {
    let fixture = Fixture::start().await;
    let mut client = Client::connect(&fixture, true).await;
    let (_, list) = client.get("/api/v1", &[]).await;
    let pods = list.list_at("resources").iter().find(|r| r.str_at("name") == "pods").unwrap();
    assert_eq!((pods.str_at("kind"), pods.bool_at("namespaced")), ("Pod", true));
    let aggregated =
        [("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json")];
    let (_, groups) = client.get("/apis", &aggregated).await;
    assert_eq!(groups.str_at("kind"), "APIGroupDiscoveryList");
    assert_eq!(client.get("/openapi/v3", &[]).await.0, 200);
    assert_eq!(client.get("/openapi/v3/apis/apps/v1", &[]).await.0, 200);
    assert_eq!(client.get("/apis/apps/v1/nonsense", &[]).await.0, 404);
    let (code, metrics) = client.get("/metrics", &[]).await;
    assert!(code == 200 && metrics.to_string().contains("apiserver_request_total"));
}

#[tokio::test]
async fn impersonation_shows_what_another_may() {
    let fixture = Fixture::start().await;
    let mut client = Client::connect(&fixture, true).await;
    let (code, status) = client.get("/api/v1/pods", &[("impersonate-user", "bob")]).await;
    assert_eq!((code, status.str_at("message").contains("User \"bob\"")), (403, true));
}

#[tokio::test]
async fn logs_and_a_command_over_a_web_socket() {
    let fixture = Fixture::start().await;
    let mut client = Client::connect(&fixture, true).await;
    const PODS: &str = "/api/v1/namespaces/default/pods";
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    assert_eq!(client.post(accounts, r#"{"metadata":{"name":"default"}}"#).await.0, 201);
    let pod = r#"{"metadata":{"name":"p"},"spec":{"nodeName":"n1","containers":[{"name":"c","image":"i"}]}}"#;
    assert_eq!(client.post(PODS, pod).await.0, 201);
    assert_eq!(client.get(&format!("{PODS}/p/log"), &[]).await, (200, Tree::from("a line of c\n")));
    let (code, status) = client.get(&format!("{PODS}/p/log?container=x"), &[]).await;
    assert_eq!((code, status.str_at("message")), (400, "container x is not valid for pod p"));
    let http = corten_client::HttpClient::new(&connection(&fixture)).unwrap();
    let path = format!("{PODS}/p/exec?command=cat&stdin=true&stdout=true&container=c");
    let (mut input, mut output) = corten_client::exec::open(&http, &path).await.unwrap();
    input.stdin(b"hello").await.unwrap();
    input.close_stdin().await.unwrap();
    let mut seen = Vec::new();
    let code = loop {
        match output.next().await {
            corten_client::exec::ExecEvent::Stdout(bytes) => seen.extend_from_slice(&bytes),
            corten_client::exec::ExecEvent::Exit(code) => break code,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((seen.as_slice(), code), (&b"hello"[..], 3));
}

#[tokio::test]
async fn unserved_versions_get_a_status_and_unknown_groups_a_page() {
    let fixture = Fixture::start().await;
    let mut client = Client::connect(&fixture, true).await;
    let known = [
        "/apis/certificates.k8s.io/v1beta1/clustertrustbundles",
        "/apis/apps/v2",
        "/apis/apps/v2/x",
        "/apis/apps/v1/nope",
        "/api/v2",
        "/api/v2/pods",
        "/api/v1/namespaces/default/pods/x/nope",
    ];
    for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
        for path in known {
            let answer = client.send(method.clone(), path, &[], b"{}").await;
            assert_eq!(answer.status().as_u16(), 404, "{method} {path}");
            let text = answer.into_body().collect().await.unwrap().to_bytes();
            let status = corten_tree::json::parse(&text).unwrap();
            assert_eq!(status.str_at("message"), "the server could not find the requested resource", "{method} {path}");
            assert_eq!((status.str_at("reason"), status.map_at("details").len()), ("NotFound", 0));
        }
        for path in ["/apis/nope", "/apis/nope/v1", "/apis/nope/v1/x"] {
            let answer = client.send(method.clone(), path, &[], b"{}").await;
            let text = answer.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(text, "404 page not found\n", "{method} {path}");
        }
    }
    assert_eq!(client.send(Method::POST, "/apis/apps/v1", &[], b"{}").await.status().as_u16(), 405);
}

#[tokio::test]
async fn events_field_selector_source_falls_back_to_the_reporting_controller() {
    let fixture = Fixture::start().await;
    let mut client = Client::connect(&fixture, true).await;
    let events = "/api/v1/namespaces/default/events";
    for (name, more) in [
        ("old", r#""source":{"component":"kubelet"},"reportingComponent":"other""#),
        ("new", r#""reportingComponent":"kubelet""#),
        ("none", r#""source":{"component":"scheduler"},"reportingComponent":"kubelet""#),
    ] {
        let about = r#""involvedObject":{"namespace":"default"}"#;
        let body = format!(r#"{{"metadata":{{"name":"{name}"}},{about},{more}}}"#);
        let (code, made) = client.post(events, &body).await;
        assert_eq!(code, 201, "{made}");
    }
    for (collection, selector, expected) in [
        (events, "source=kubelet", vec!["new", "old"]),
        ("/apis/events.k8s.io/v1/namespaces/default/events", "source=kubelet", vec!["new", "old"]),
        (events, "source=scheduler", vec!["none"]),
        (events, "reportingComponent=kubelet", vec!["new", "none"]),
    ] {
        let (_, list) = client.get(&format!("{collection}?fieldSelector={}", selector.replace('=', "%3D")), &[]).await;
        let names: Vec<&str> = list.list_at("items").iter().map(|e| e.str_at("metadata.name")).collect();
        assert_eq!(names, expected, "{selector}");
    }
}

/// A kubeconfig of the administrator.
fn connection(fixture: &Fixture) -> corten_client::kubeconfig::Connection {
    corten_client::kubeconfig::Connection {
        server: format!("https://localhost:{}", fixture.server.addresses()[0].port()),
        ca_pem: fixture.material.ca_cert_pem.clone().into_bytes(),
        cert_pem: fixture.material.admin.cert_pem.clone().into_bytes(),
        key_pem: fixture.material.admin.key_pem.clone().into_bytes(),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubeconfig_decides_about_the_servers_certificate() {
    let fixture = Fixture::start().await;
    let reaches = async |edit: fn(&mut corten_client::kubeconfig::Connection)| {
        let mut connection = connection(&fixture);
        edit(&mut connection);
        corten_client::HttpClient::new(&connection)
            .unwrap()
            .json(hyper::Method::GET, "/version", "", None)
            .await
            .is_ok()
    };
    assert!(reaches(|_| ()).await);
    // tls-server-name is what the certificate must be for.
    assert!(reaches(|c| c.tls_server_name = "kubernetes.default.svc".into()).await);
    assert!(!reaches(|c| c.tls_server_name = "elsewhere.example".into()).await);
    // Without an authority those of the system decide, and they do not know ours.
    assert!(!reaches(|c| c.ca_pem.clear()).await);
    assert!(reaches(|c| (c.ca_pem.clear(), c.insecure = true).1).await);
}
