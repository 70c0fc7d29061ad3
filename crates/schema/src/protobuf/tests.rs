use super::*;
use crate::{Options, builtin, decode_json};

fn pod() -> TypeId {
    builtin().gvk("", "v1", "Pod").unwrap()
}

#[test]
fn an_object_goes_there_and_back() {
    let json = br#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"x","creationTimestamp":"2026-01-02T03:04:05Z",
        "labels":{"a":"1","b":""},"managedFields":[{"fieldsType":"FieldsV1","fieldsV1":{"f:spec":{".":{}}}}]},
        "spec":{"volumes":[{"name":"v","emptyDir":{"sizeLimit":"1Gi"}}],"containers":[{"name":"c","livenessProbe":{
        "httpGet":{"port":"web"},"initialDelaySeconds":-1},"resources":{}}],"priority":0,"hostNetwork":true},"status":{}}"#;
    let tree = decode_json(builtin(), pod(), json, Options::default()).unwrap().tree;
    let bytes = encode_object(builtin(), pod(), &tree);
    let (ty, back) = decode_object(builtin(), &bytes).unwrap();
    assert_eq!((ty, back.to_json_string()), (pod(), tree.to_json_string()));
}

#[test]
fn json_becomes_protobuf_as_its_tree_does() {
    let long = "x".repeat(300);
    for (group, version, kind, json) in [
        ("", "v1", "Pod", "{}"),
        ("", "v1", "Pod", include_str!("../../examples/pod.json").trim()),
        ("", "v1", "Secret", r#"{"metadata":{"name":"s"},"data":{"a":"AAEC","b":"","c":null},"type":"Opaque"}"#),
        ("", "v1", "ConfigMap", &format!(r#"{{"data":{{"a\n":"\u003c\"{long}\"","b":"é"}}}}"#)),
        (
            "apps",
            "v1",
            "Deployment",
            r#"{"spec":{"replicas":0,"strategy":{"rollingUpdate":{"maxSurge":"25%","maxUnavailable":1}}}}"#,
        ),
        ("rbac.authorization.k8s.io", "v1", "Role", r#"{"rules":[{"verbs":["get","list"],"apiGroups":[""]}]}"#),
        (
            "apiextensions.k8s.io",
            "v1",
            "CustomResourceDefinition",
            r#"{"spec":{"versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object","minimum":1.5,"default":{"a":[1]},"items":{"type":"string"},"additionalProperties":true}}}]}}"#,
        ),
        ("coordination.k8s.io", "v1", "Lease", r#"{"spec":{"renewTime":"2026-01-02T03:04:05.000006Z"}}"#),
    ] {
        let ty = builtin().gvk(group, version, kind).unwrap();
        let tree = decode_json(builtin(), ty, json.as_bytes(), Options::default()).unwrap().tree;
        let canonical = crate::encode_json(builtin(), ty, &tree);
        let straight = from_json(builtin(), ty, &canonical).unwrap();
        assert!(straight == encode(builtin(), ty, &tree), "{kind}: {json}");
    }
    assert!(from_json(builtin(), pod(), b"{\"metadata\":[]}").is_err());
    assert!(from_json(builtin(), pod(), b"{\"spec\":{\"priority\":\"x\"}}").is_err());
    assert!(from_json(builtin(), pod(), b"{} x").is_err());
}

#[test]
fn a_list_of_messages_is_the_list() {
    let ty = builtin().gvk("", "v1", "PodList").unwrap();
    let pods = ["a", "b"].map(|name| corten_tree::tree!({"metadata": {"name": (name.repeat(200))}, "spec": {}}));
    let mut list = corten_tree::tree!({"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "7"}});
    let messages: Vec<Vec<u8>> = pods.iter().map(|tree| encode(builtin(), pod(), tree)).collect();
    let items_bytes = messages.iter().map(|message| list_item_bytes(message.len())).sum();
    let mut written = list_head(builtin(), ty, &list, items_bytes).unwrap();
    for message in &messages {
        list_item(&mut written, message.len());
        written.extend_from_slice(message);
    }
    written.extend_from_slice(LIST_TAIL);
    list.insert("items", Tree::List(pods.to_vec()));
    assert_eq!(written, encode_object(builtin(), ty, &list));
}

#[test]
fn faults_are_errors() {
    assert_eq!(Envelope::read(b"{}"), Err(ProtobufError::Magic));
    assert_eq!(Envelope::read(b"k8s\0\x0a\xff"), Err(ProtobufError::End));
    let unknown = Envelope { api_version: "v1", kind: "Nothing", ..Envelope::default() }.write();
    assert!(matches!(decode_object(builtin(), &unknown), Err(ProtobufError::UnknownKind { .. })));
    // metadata as a varint
    let error = decode(builtin(), pod(), b"\x08\x01").unwrap_err();
    assert_eq!(error.to_string(), "proto: wrong wireType = 0 for field metadata");
    assert!(decode(builtin(), pod(), &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]).is_err());
}
