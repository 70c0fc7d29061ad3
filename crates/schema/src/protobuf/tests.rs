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
