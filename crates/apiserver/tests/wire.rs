//! What a client sees on the wire: options and what is wrong with them, forms of answers, watches, lists in pages, health.

#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod checklist;
mod common;

use common::{Client, Fixture};
use corten_tree::{Tree, json};
use http_body_util::BodyExt;
use hyper::Method;
use hyper::body::Incoming;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// Code, headers and text of an answer.
async fn ask(
    client: &mut Client,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (u16, hyper::HeaderMap, String) {
    let response = client.send(method.parse::<Method>().unwrap(), path, headers, body.as_bytes()).await;
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    (parts.status.as_u16(), parts.headers, String::from_utf8_lossy(&bytes).into_owned())
}

async fn status(client: &mut Client, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, Tree) {
    let (code, _, text) = ask(client, method, path, headers, body).await;
    (code, json::parse(text.as_bytes()).unwrap_or_else(|_| Tree::from(text)))
}

#[tokio::test]
async fn status_codes_reasons_and_messages_of_refused_requests() {
    let fixture = Fixture::start().await;
    let mut client = Client::connect(&fixture, true).await;
    let many = format!("{{\"metadata\":{{\"name\":\"big\"}},\"data\":{{\"a\":\"{}\"}}}}", "x".repeat(3 << 20));
    let text = ("content-type", "text/html");
    let rows: &[(&str, String, &[(&str, &str)], &str, u16, &str, &str)] = &[
        ("GET", format!("{MAPS}/none"), &[], "", 404, "NotFound", "configmaps \"none\" not found"),
        (
            "GET",
            "/api/v1/nonsense".into(),
            &[],
            "",
            404,
            "NotFound",
            "the server could not find the requested resource",
        ),
        (
            "POST",
            format!("{MAPS}/x"),
            &[],
            "{}",
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        ),
        (
            "PUT",
            MAPS.into(),
            &[],
            "{}",
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        ),
        (
            "OPTIONS",
            MAPS.into(),
            &[],
            "",
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        ),
        (
            "POST",
            MAPS.into(),
            &[text],
            "{}",
            415,
            "UnsupportedMediaType",
            "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf",
        ),
        (
            "PATCH",
            format!("{MAPS}/x"),
            &[text],
            "{}",
            415,
            "UnsupportedMediaType",
            "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml",
        ),
        (
            "GET",
            MAPS.into(),
            &[("accept", "text/html")],
            "",
            406,
            "NotAcceptable",
            "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf",
        ),
        (
            "GET",
            MAPS.into(),
            &[("accept", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io")],
            "",
            406,
            "NotAcceptable",
            "you requested PartialObjectMetadata, but the requested object is a list (*core.ConfigMapList)",
        ),
        (
            "GET",
            format!("{MAPS}?includeObject=Some"),
            &[("accept", TABLE)],
            "",
            400,
            "BadRequest",
            "Unable to convert to Table as requested: includeObject: Invalid value: \"Some\": must be 'Metadata', 'Object', 'None', or empty",
        ),
        (
            "POST",
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews".into(),
            &[("accept", TABLE)],
            "{\"spec\":{}}",
            406,
            "NotAcceptable",
            "only the following media types are accepted",
        ),
        ("POST", MAPS.into(), &[], &many, 413, "RequestEntityTooLarge", "Request entity too large: limit is 3145728"),
        (
            "POST",
            format!("{MAPS}?dryRun=No"),
            &[],
            "{}",
            422,
            "Invalid",
            "CreateOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: [\"No\"]: supported values: \"All\"",
        ),
        (
            "GET",
            format!("{MAPS}?limit=x"),
            &[],
            "",
            400,
            "BadRequest",
            "strconv.ParseInt: parsing \"x\": invalid syntax",
        ),
        (
            "GET",
            format!("{MAPS}?labelSelector=a+in"),
            &[],
            "",
            400,
            "BadRequest",
            "unable to parse requirement: found '' expected: '('",
        ),
        (
            "GET",
            format!("{MAPS}?fieldSelector=spec.x%3Dy"),
            &[],
            "",
            400,
            "BadRequest",
            "\"spec.x\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
        ),
        (
            "GET",
            format!("{MAPS}?continue=zz.z"),
            &[],
            "",
            400,
            "BadRequest",
            "invalid continue token: continue key is not valid: illegal base64 data at input byte 2",
        ),
        (
            "GET",
            format!("{MAPS}?resourceVersion=x"),
            &[],
            "",
            400,
            "BadRequest",
            "invalid resource version: resourceVersion: Invalid value: \"x\": strconv.ParseUint: parsing \"x\": invalid syntax",
        ),
        (
            "GET",
            format!("{MAPS}?resourceVersion=999999&resourceVersionMatch=NotOlderThan"),
            &[],
            "",
            504,
            "Timeout",
            "Timeout: Too large resource version: 999999, current: ",
        ),
        (
            "GET",
            format!("{MAPS}?timeout=x"),
            &[],
            "",
            400,
            "BadRequest",
            "invalid timeout specified in the request URL - time: invalid duration \"x\"",
        ),
        (
            "GET",
            format!("{MAPS}?timeout=1ms&resourceVersion=999999"),
            &[],
            "",
            504,
            "Timeout",
            "Timeout: request did not complete within the allotted timeout",
        ),
        (
            "DELETE",
            format!("{MAPS}/x?propagationPolicy=Maybe"),
            &[],
            "",
            422,
            "Invalid",
            "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Unsupported value: \"Maybe\": supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\"",
        ),
        (
            "DELETE",
            format!("{MAPS}/x"),
            &[],
            "{\"kind\":\"Pod\",\"apiVersion\":\"v1\"}",
            400,
            "BadRequest",
            "decoded object cannot be converted to DeleteOptions",
        ),
    ];
    for (method, path, headers, body, code, reason, message) in rows {
        let (found, status) = status(&mut client, method, path, headers, body).await;
        assert_eq!((found, status.str_at("reason")), (*code, *reason), "{method} {path}: {status}");
        assert!(status.str_at("message").starts_with(message), "{method} {path}: {status}");
        assert_eq!(status.i64_at("code"), Some(i64::from(*code)), "{method} {path}");
        if *code == 413 {
            client = Client::connect(&fixture, true).await;
        }
    }
}

#[tokio::test]
async fn unknown_paths_are_gos_404_and_head_of_a_resource_is_405() {
    let fixture = Fixture::start().await;
    let mut client = Client::connect(&fixture, true).await;
    for path in ["/nothing", "/apis/none.example.com", "/apis/none.example.com/v1", "/apis/none.example.com/v1/things"]
    {
        let (code, headers, text) = ask(&mut client, "GET", path, &[], "").await;
        assert_eq!((code, text.as_str()), (404, "404 page not found\n"), "{path}");
        assert_eq!(headers["x-content-type-options"], "nosniff");
    }
    assert_eq!(ask(&mut client, "HEAD", MAPS, &[], "").await.0, 405);
    assert_eq!(ask(&mut client, "HEAD", "/healthz", &[], "").await.0, 200);
    assert_eq!(ask(&mut client, "POST", "/api", &[], "").await.0, 405);
}

#[tokio::test]
async fn pretty_json_for_people_and_a_lines_end_for_the_rest() {
    let fixture = Fixture::start().await;
    let mut client = Client::connect(&fixture, true).await;
    let path = "/api/v1/namespaces/default";
    let plain = ask(&mut client, "GET", path, &[], "").await.2;
    assert!(plain.starts_with("{\"kind\":\"Namespace\"") && plain.ends_with("}\n"), "{plain}");
    for (path, headers) in [(format!("{path}?pretty=1"), vec![]), (path.into(), vec![("user-agent", "curl/8")])] {
        let text = ask(&mut client, "GET", &path, &headers, "").await.2;
        assert!(text.starts_with("{\n  \"kind\": \"Namespace\",\n") && text.ends_with("}\n}"), "{text}");
    }
    let list = ask(&mut client, "GET", "/api/v1/namespaces?pretty=true", &[], "").await.2;
    assert!(list.contains("\n  \"items\": [\n    {\n"), "{list}");
    let yaml = ask(&mut client, "GET", path, &[("accept", "application/yaml")], "").await.2;
    assert!(yaml.starts_with("apiVersion: v1\nkind: Namespace\nmetadata:\n"), "{yaml}");
    let watch = ask(&mut client, "GET", &format!("{MAPS}?watch=1"), &[("accept", "application/yaml")], "").await;
    assert!(watch.0 == 406 && watch.2.contains("application/json;stream=watch"), "YAML has no stream: {watch:?}");
}

#[tokio::test]
async fn delete_answers_options_and_dry_run() {
    let fixture = Fixture::start().await;
    let mut client = Client::connect(&fixture, true).await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    for (list, name) in [(MAPS, "a"), (MAPS, "b"), (MAPS, "c"), (accounts, "s")] {
        let body = format!("{{\"metadata\":{{\"name\":\"{name}\",\"labels\":{{\"x\":\"y\"}}}}}}");
        assert_eq!(client.post(list, &body).await.0, 201);
    }
    let (code, dry) = status(&mut client, "DELETE", &format!("{MAPS}/a?dryRun=All"), &[], "").await;
    assert_eq!((code, dry.str_at("status"), dry.str_at("details.kind")), (200, "Success", "configmaps"));
    let uid = "{\"preconditions\":{\"uid\":\"other\"}}";
    let (code, wrong) = status(&mut client, "DELETE", &format!("{MAPS}/a"), &[], uid).await;
    assert_eq!((code, wrong.str_at("reason")), (409, "Conflict"));
    let (code, wrong) = status(&mut client, "DELETE", &format!("{MAPS}/a?uid=other"), &[], "").await;
    assert_eq!((code, wrong.str_at("reason")), (409, "Conflict"), "preconditions in the query");
    let (code, account) = status(&mut client, "DELETE", &format!("{accounts}/s"), &[], "").await;
    assert_eq!((code, account.str_at("kind")), (200, "ServiceAccount"), "kinds that answer with what was deleted");
    let held = "{\"metadata\":{\"name\":\"held\",\"finalizers\":[\"x.example.com/y\"]}}";
    assert_eq!(client.post(MAPS, held).await.0, 201);
    let (code, marked) =
        status(&mut client, "DELETE", &format!("{MAPS}/held"), &[], "{\"orphanDependents\":false}").await;
    assert_eq!((code, marked.str_at("metadata.deletionTimestamp").is_empty()), (202, false));
    let collection = format!("{MAPS}?labelSelector=x%3Dy");
    let (code, listed) = status(&mut client, "DELETE", &format!("{collection}&dryRun=All"), &[], "").await;
    assert_eq!((code, listed.str_at("kind"), listed.list_at("items").len()), (200, "ConfigMapList", 3));
    let (_, page) = status(&mut client, "DELETE", &format!("{collection}&limit=2"), &[], "").await;
    assert_eq!(page.list_at("items").len(), 2);
    let (_, left) = client.get(&collection, &[]).await;
    assert_eq!(left.list_at("items").len(), 1);
}

#[tokio::test]
async fn continue_after_compaction_is_410_with_a_token_to_go_on() {
    let fixture = Fixture::start().await;
    let mut client = Client::connect(&fixture, true).await;
    for i in 0..6 {
        assert_eq!(client.post(MAPS, &format!("{{\"metadata\":{{\"name\":\"m{i}\"}}}}")).await.0, 201);
    }
    let (_, first) = client.get(&format!("{MAPS}?limit=2"), &[]).await;
    let token = first.str_at("metadata.continue");
    let (_, second) = client.get(&format!("{MAPS}?limit=2&continue={token}"), &[]).await;
    assert_eq!(second.i64_at("metadata.remainingItemCount"), Some(2));
    assert_eq!(client.post(MAPS, "{\"metadata\":{\"name\":\"m9\"}}").await.0, 201);
    let now = fixture.store.current_revision().await.unwrap();
    fixture.store.compact(now).await.unwrap();
    let (code, gone) = client.get(&format!("{MAPS}?limit=2&continue={token}"), &[]).await;
    assert_eq!((code, gone.str_at("reason")), (410, "Expired"));
    assert!(gone.str_at("message").contains("results in an inconsistent list"), "{gone}");
    let token = gone.str_at("metadata.continue");
    let (_, next) = client.get(&format!("{MAPS}?limit=2&continue={token}"), &[]).await;
    let names: Vec<&str> = next.list_at("items").iter().map(|i| i.str_at("metadata.name")).collect();
    assert_eq!((names, next.i64_at("metadata.remainingItemCount")), (vec!["m2", "m3"], Some(3)));
    let revision = next.str_at("metadata.resourceVersion");
    assert_ne!(revision, first.str_at("metadata.resourceVersion"));
    let token = next.str_at("metadata.continue");
    let (_, last) = client.get(&format!("{MAPS}?continue={token}"), &[]).await;
    assert_eq!((last.list_at("items").len(), last.str_at("metadata.resourceVersion")), (3, revision));
    let old = first.str_at("metadata.resourceVersion");
    let (code, gone) = client.get(&format!("{MAPS}?resourceVersion={old}&resourceVersionMatch=Exact"), &[]).await;
    assert_eq!((code, gone.str_at("message")), (410, "The resourceVersion for the provided list is too old."));
}

async fn frame(body: &mut Incoming) -> String {
    String::from_utf8_lossy(&body.frame().await.unwrap().unwrap().into_data().unwrap()).into_owned()
}

#[tokio::test]
async fn watch_begins_as_its_resource_version_says() {
    let fixture = Fixture::start().await;
    let mut writer = Client::connect(&fixture, true).await;
    assert_eq!(writer.post(MAPS, "{\"metadata\":{\"name\":\"one\"}}").await.0, 201);
    let (_, listed) = writer.get(MAPS, &[]).await;
    let now: u64 = listed.str_at("metadata.resourceVersion").parse().unwrap();
    let open = async |path: String| {
        let mut client = Client::connect(&fixture, true).await;
        let response = client.send(Method::GET, &path, &[], b"").await;
        (client, response.status().as_u16(), response.into_body())
    };
    let (_a, code, mut from_now) = open(format!("{MAPS}?watch=1")).await;
    assert_eq!(code, 200);
    assert!(frame(&mut from_now).await.starts_with("{\"type\":\"ADDED\""), "the present state first");
    let (_b, _, mut prefix) = open("/api/v1/watch/namespaces/default/configmaps/one".into()).await;
    assert!(frame(&mut prefix).await.contains("\"name\":\"one\""));
    let (_c, code, mut future) = open(format!("{MAPS}?watch=1&resourceVersion={}", now + 1)).await;
    assert_eq!(code, 200, "a revision that is still to come");
    let (_d, _, mut nothing) =
        open(format!("{MAPS}?watch=1&sendInitialEvents=false&resourceVersionMatch=NotOlderThan")).await;
    assert_eq!(writer.post(MAPS, "{\"metadata\":{\"name\":\"two\"}}").await.0, 201);
    assert_eq!(writer.post(MAPS, "{\"metadata\":{\"name\":\"three\"}}").await.0, 201);
    assert!(frame(&mut future).await.contains("\"name\":\"three\""), "what came after the revision only");
    assert!(frame(&mut nothing).await.contains("\"name\":\"two\""), "no initial events");
    let (_e, code, mut ending) = open(format!("{MAPS}?watch=1&timeoutSeconds=1&resourceVersion={now}")).await;
    assert_eq!(code, 200);
    while let Some(part) = ending.frame().await {
        part.unwrap();
    }
}

#[tokio::test]
async fn watch_too_old_is_an_error_event_with_410() {
    let ring = corten_cache::RingLimits { events_max: 2, ..Default::default() };
    let fixture = Fixture::with_cache(corten_cache::CacheOptions { ring, ..Default::default() }).await;
    let mut client = Client::connect(&fixture, true).await;
    for name in ["a", "b", "c"] {
        assert_eq!(client.post(MAPS, &format!("{{\"metadata\":{{\"name\":\"{name}\"}}}}")).await.0, 201);
    }
    let (code, headers, text) = ask(&mut client, "GET", &format!("{MAPS}?watch=1&resourceVersion=1"), &[], "").await;
    assert_eq!((code, headers["content-type"].to_str().unwrap()), (200, "application/json"));
    let event = json::parse(text.as_bytes()).unwrap();
    assert_eq!((event.str_at("type"), event.str_at("object.reason")), ("ERROR", "Expired"), "{text}");
    assert_eq!(event.i64_at("object.code"), Some(410));
    assert!(event.str_at("object.message").starts_with("too old resource version: 1 ("), "{text}");
}

#[tokio::test]
async fn watch_list_ends_with_a_bookmark_in_every_form() {
    let fixture = Fixture::start().await;
    let path = format!(
        "{MAPS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=1"
    );
    let mut client = Client::connect(&fixture, true).await;
    for (accept, expected) in [
        ("application/json", "{\"type\":\"BOOKMARK\",\"object\":{\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\","),
        (
            "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
            "\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"meta.k8s.io/v1\"",
        ),
        (TABLE, "\"kind\":\"Table\",\"apiVersion\":\"meta.k8s.io/v1\""),
        (PROTOBUF, "ConfigMap"),
    ] {
        let (code, _, text) = ask(&mut client, "GET", &path, &[("accept", accept)], "").await;
        assert_eq!(code, 200);
        assert!(text.contains(expected) && text.contains("k8s.io/initial-events-end"), "{accept}: {text}");
    }
    let without = path.replace("&allowWatchBookmarks=true", "");
    let (_, _, text) = ask(&mut client, "GET", &without, &[], "").await;
    assert_eq!(text, "", "who does not want bookmarks gets none");
}

#[tokio::test]
async fn watch_over_a_web_socket() {
    use futures::StreamExt as _;
    use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
    let fixture = Fixture::start().await;
    let mut writer = Client::connect(&fixture, true).await;
    assert_eq!(writer.post(MAPS, "{\"metadata\":{\"name\":\"one\"}}").await.0, 201);
    for (accept, text) in [("application/json", true), (PROTOBUF, false)] {
        let stream = fixture.tls(Some(&fixture.material.admin)).await.into_inner();
        let mut request = format!("wss://localhost{MAPS}?watch=1&timeoutSeconds=5").into_client_request().unwrap();
        request.headers_mut().insert("accept", accept.parse().unwrap());
        let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await.unwrap();
        let message = socket.next().await.unwrap().unwrap();
        assert_eq!(message.is_text(), text);
        let bytes = message.into_data();
        if text {
            let event = json::parse(&bytes).unwrap();
            assert_eq!((event.str_at("type"), event.str_at("object.metadata.name")), ("ADDED", "one"));
        } else {
            assert_eq!(&bytes[..7], b"\x0a\x05ADDED", "a WatchEvent without a length before it");
        }
    }
}

#[tokio::test]
async fn discovery_and_openapi_have_etags() {
    let fixture = Fixture::start().await;
    let mut client = Client::connect(&fixture, true).await;
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let (_, headers, _) = ask(&mut client, "GET", "/apis", &[("accept", aggregated)], "").await;
    assert_eq!(headers["content-type"], aggregated);
    let etag = headers["etag"].to_str().unwrap().to_owned();
    let again = [("accept", aggregated), ("if-none-match", etag.as_str())];
    let (code, _, text) = ask(&mut client, "GET", "/apis", &again, "").await;
    assert_eq!((code, text.as_str()), (304, ""));
    let (_, index) = client.get("/openapi/v3", &[]).await;
    let url = index.at(&["paths", "apis/apps/v1", "serverRelativeURL"]).unwrap().as_str().unwrap().to_owned();
    let (code, headers, _) = ask(&mut client, "GET", &url, &[], "").await;
    assert_eq!((code, headers["cache-control"].to_str().unwrap()), (200, "public, immutable"));
    assert!(url.ends_with(&format!("hash={}", headers["etag"].to_str().unwrap().trim_matches('"'))), "{url}");
    let (code, headers, _) = ask(&mut client, "GET", "/openapi/v3/apis/apps/v1?hash=OLD", &[], "").await;
    assert_eq!((code, headers["location"].to_str().unwrap()), (301, url.as_str()));
}

#[tokio::test]
async fn openapi_v2_as_json_and_as_protobuf() {
    let fixture = Fixture::start().await;
    let mut client = Client::connect(&fixture, true).await;
    let (code, document) = client.get("/openapi/v2", &[]).await;
    assert_eq!((code, document.str_at("swagger")), (200, "2.0"));
    let pod = document.at(&["definitions", "io.k8s.api.core.v1.Pod"]).unwrap();
    let spec = pod.at(&["properties", "spec", "$ref"]).and_then(Tree::as_str);
    assert_eq!(spec, Some("#/definitions/io.k8s.api.core.v1.PodSpec"));
    let path = document.at(&["paths", "/apis/apps/v1/namespaces/{namespace}/deployments/{name}", "patch"]).unwrap();
    assert!(path.list_at("consumes").iter().any(|c| c.as_str() == Some("application/strategic-merge-patch+json")));
    // Every reference leads somewhere.
    let text = document.to_json_string();
    for reference in text.split("\"#/definitions/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(document.at(&["definitions", name]).is_some(), "{name}");
    }
    let accept = [("accept", "application/com.github.proto-openapi.spec.v2@v1.0+protobuf")];
    let response = client.send(Method::GET, "/openapi/v2", &accept, b"").await;
    let etag = response.headers()["etag"].to_str().unwrap().to_owned();
    assert_eq!(response.headers()["content-type"], "application/com.github.proto-openapi.spec.v2.v1.0+protobuf");
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(&bytes[..5], b"\x0a\x032.0");
    let again = [accept[0], ("if-none-match", etag.as_str())];
    assert_eq!(ask(&mut client, "GET", "/openapi/v2", &again, "").await.0, 304);
}

#[tokio::test]
async fn metrics_have_upstreams_names_and_labels() {
    let fixture = Fixture::start().await;
    let mut client = Client::connect(&fixture, true).await;
    assert_eq!(client.post(&format!("{MAPS}?dryRun=All"), "{\"metadata\":{\"name\":\"one\"}}").await.0, 201);
    client.get("/api/v1/namespaces", &[]).await;
    let (_, _, text) = ask(&mut client, "GET", "/metrics", &[], "").await;
    for line in [
        "apiserver_request_total{code=\"201\",component=\"apiserver\",dry_run=\"All\",group=\"\",resource=\"configmaps\",scope=\"namespace\",subresource=\"\",verb=\"POST\",version=\"v1\"} 1\n",
        "apiserver_request_duration_seconds_bucket{component=\"apiserver\",dry_run=\"\",group=\"\",resource=\"namespaces\",scope=\"cluster\",subresource=\"\",verb=\"LIST\",version=\"v1\",le=\"60\"} 1\n",
        "apiserver_current_inflight_requests{request_kind=\"readOnly\"} 1\n",
        "apiserver_resource_objects{group=\"\",resource=\"namespaces\"} 4\n",
        "apiserver_storage_objects{resource=\"priorityclasses.scheduling.k8s.io\"} 2\n",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}

/// Those that are counted as things happen are the process's: other tests count, too.
#[tokio::test]
async fn metrics_of_watches_callers_admission_and_health_are_counted() {
    let fixture = Fixture::start().await;
    let mut client = Client::connect(&fixture, true).await;
    assert_eq!(client.post(MAPS, "{\"metadata\":{\"name\":\"one\"}}").await.0, 201);
    let mut watching = Client::connect(&fixture, true).await;
    let list = "sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan";
    let mut watch = watching.send(Method::GET, &format!("{MAPS}?watch=true&{list}"), &[], b"").await.into_body();
    watch.frame().await.unwrap().unwrap();
    assert_eq!(ask(&mut client, "GET", "/livez/ping", &[], "").await.0, 200);
    assert_eq!(client.get("/api/v1/namespaces/default/endpoints", &[]).await.0, 200);
    let (_, _, text) = ask(&mut client, "GET", "/metrics", &[], "").await;
    for line in [
        "apiserver_longrunning_requests{component=\"apiserver\",group=\"\",resource=\"configmaps\",scope=\"namespace\",subresource=\"\",verb=\"WATCH\",version=\"v1\"} ",
        "apiserver_watch_events_total{group=\"\",resource=\"configmaps\",version=\"v1\"} ",
        "apiserver_watch_events_sizes_bucket{group=\"\",resource=\"configmaps\",version=\"v1\",le=\"1024\"} ",
        "apiserver_watch_list_duration_seconds_count{group=\"\",resource=\"configmaps\",scope=\"namespace\",version=\"v1\"} ",
        "apiserver_response_sizes_count{component=\"apiserver\",group=\"\",resource=\"endpoints\",scope=\"namespace\",subresource=\"\",verb=\"LIST\",version=\"v1\"} 1\n",
        "apiserver_requested_deprecated_apis{group=\"\",removed_release=\"\",resource=\"endpoints\",subresource=\"\",version=\"v1\"} 1\n",
        "apiserver_admission_step_admission_duration_seconds_count{operation=\"CREATE\",rejected=\"false\",type=\"admit\"} ",
        "apiserver_admission_controller_admission_duration_seconds_count{name=\"NamespaceLifecycle\",operation=\"CREATE\",rejected=\"false\",type=\"admit\"} ",
        "authentication_attempts{result=\"success\"} ",
        "authenticated_user_requests{username=\"other\"} ",
        "authorization_attempts_total{result=\"allowed\"} ",
        "kubernetes_build_info{build_date=",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    let (_, _, slis) = ask(&mut client, "GET", "/metrics/slis", &[], "").await;
    for line in [
        "kubernetes_healthcheck{name=\"ping\",type=\"livez\"} 1\n",
        "kubernetes_healthchecks_total{name=\"ping\",status=\"success\",type=\"livez\"} ",
    ] {
        assert!(slis.contains(line), "{line} in {slis}");
    }
}

#[tokio::test]
async fn health_checks_by_name_with_exclude_and_verbose() {
    let fixture = Fixture::start().await;
    let mut client = Client::connect(&fixture, true).await;
    for endpoint in ["healthz", "livez", "readyz"] {
        let (code, _, text) = ask(&mut client, "GET", &format!("/{endpoint}"), &[], "").await;
        assert_eq!((code, text.as_str()), (200, "ok"));
        let path = format!("/{endpoint}?verbose&exclude=etcd&exclude=nothing");
        let (_, _, text) = ask(&mut client, "GET", &path, &[], "").await;
        let expected = [
            "[+]ping ok\n".to_owned(),
            "[+]etcd excluded: ok\n".into(),
            "warn: some health checks cannot be excluded: no matches for \"nothing\"\n".into(),
            format!("{endpoint} check passed\n"),
        ];
        for line in expected {
            assert!(text.contains(&line), "{line} in {text}");
        }
        assert_eq!(text.contains("[+]informer-sync ok"), endpoint == "readyz");
        assert_eq!(ask(&mut client, "GET", &format!("/{endpoint}/etcd"), &[], "").await.0, 200);
        assert_eq!(ask(&mut client, "GET", &format!("/{endpoint}/nothing"), &[], "").await.0, 404);
    }
    let (_, root) = client.get("/", &[]).await;
    assert!(root.list_at("paths").iter().any(|p| p.as_str() == Some("/livez/etcd")), "{root}");
}
