use super::*;
use crate::{builtin, encode_json};

fn decode(kind: &str, text: &str) -> Result<Decoded, DecodeError> {
    let ty = builtin().gvk("", "v1", kind).unwrap();
    decode_json(builtin(), ty, text.as_bytes(), Options::default())
}

/// The canonical text, or the error.
fn canon(kind: &str, text: &str) -> String {
    let ty = builtin().gvk("", "v1", kind).unwrap();
    match decode(kind, text) {
        Ok(decoded) => {
            let text = decoded.tree.to_json_string();
            let encoded = encode_json(builtin(), ty, &decoded.tree);
            assert_eq!(String::from_utf8(encoded).unwrap(), text, "encoding the canonical tree changes nothing");
            let again = canonicalise(builtin(), ty, &decoded.tree, Options::default()).unwrap();
            assert_eq!(again.tree, decoded.tree, "canonical trees are fixed points");
            text
        }
        Err(error) => format!("error: {error}"),
    }
}

#[test]
fn fields_come_in_struct_order_with_upstreams_zero_values() {
    let shuffled = r#"{"status":{},"spec":{"containers":[{"image":"b","name":"a","resources":{"limits":{"memory":"1024Mi",
        "cpu":0.5}}}],"hostNetwork":false,"priority":0},"metadata":{"labels":{"z":"1","a":"2"},"name":"x",
        "creationTimestamp":null},"apiVersion":"v1","kind":"Pod"}"#;
    assert_eq!(
        canon("Pod", shuffled),
        r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"x","labels":{"a":"2","z":"1"}},"spec":{"containers":[{"name":"a","image":"b","resources":{"limits":{"cpu":"500m","memory":"1Gi"}}}],"priority":0},"status":{}}"#
    );
    assert_eq!(canon("Pod", "{}"), r#"{"metadata":{},"spec":{"containers":null},"status":{}}"#);
    assert_eq!(canon("Pod", "null"), r#"{"metadata":{},"spec":{"containers":null},"status":{}}"#);
    assert_eq!(
        canon("Node", r#"{"status":{"daemonEndpoints":{}}}"#),
        r#"{"metadata":{},"spec":{},"status":{"daemonEndpoints":{"kubeletEndpoint":{"Port":0}},"nodeInfo":{"machineID":"","systemUUID":"","bootID":"","kernelVersion":"","osImage":"","containerRuntimeVersion":"","kubeletVersion":"","kubeProxyVersion":"","operatingSystem":"","architecture":""}}}"#
    );
}

#[test]
fn values_are_normalised() {
    assert_eq!(
        canon(
            "Pod",
            r#"{"metadata":{"creationTimestamp":"2026-01-02T03:04:05.5+01:00","labels":{}}, "spec":{"containers":[]}}"#
        ),
        r#"{"metadata":{"creationTimestamp":"2026-01-02T02:04:05Z"},"spec":{"containers":null},"status":{}}"#
    );
    assert_eq!(
        canon("Secret", r#"{"data":{"b":null,"a":"Zm\n9v"},"type":""}"#),
        r#"{"metadata":{},"data":{"a":"Zm9v","b":""}}"#
    );
    assert_eq!(
        canon("Service", r#"{"spec":{"ports":[{"port":80,"targetPort":"web"},{"port":81},null]}}"#),
        r#"{"metadata":{},"spec":{"ports":[{"port":80,"targetPort":"web"},{"port":81,"targetPort":0},{"port":0,"targetPort":0}]},"status":{"loadBalancer":{}}}"#
    );
}

#[test]
fn wrong_values_are_refused_in_upstreams_words() {
    for (kind, text, message) in [
        (
            "Pod",
            r#"{"spec":{"hostNetwork":"yes"}}"#,
            "json: cannot unmarshal string into Go struct field PodSpec.spec.hostNetwork of type bool",
        ),
        (
            "Pod",
            r#"{"spec":{"containers":[{"ports":[{"containerPort":"80"}]}]}}"#,
            "json: cannot unmarshal string into Go struct field ContainerPort.spec.containers.ports.containerPort of type int32",
        ),
        (
            "Pod",
            r#"{"spec":{"containers":{}}}"#,
            "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container",
        ),
        (
            "Pod",
            r#"{"spec":{"containers":["a"]}}"#,
            "json: cannot unmarshal string into Go struct field PodSpec.spec.containers of type v1.Container",
        ),
        (
            "Pod",
            r#"{"metadata":{"labels":{"a":1}}}"#,
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (
            "Pod",
            r#"{"spec":{"priority":3000000000}}"#,
            "json: cannot unmarshal number 3000000000 into Go struct field PodSpec.spec.priority of type int32",
        ),
        (
            "Pod",
            r#"{"spec":{"restartPolicy":1}}"#,
            "json: cannot unmarshal number into Go struct field PodSpec.spec.restartPolicy of type v1.RestartPolicy",
        ),
        (
            "Pod",
            r#"{"spec":{"volumes":[{"hostPath":1}]}}"#,
            "json: cannot unmarshal number into Go struct field Volume.spec.volumes.VolumeSource.hostPath of type v1.HostPathVolumeSource",
        ),
        ("Pod", "[]", "json: cannot unmarshal array into Go value of type v1.Pod"),
        (
            "Pod",
            r#"{"spec":{"containers":[{"resources":{"limits":{"cpu":"x"}}}]}}"#,
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        ("Secret", r#"{"data":{"a":"*"}}"#, "illegal base64 data at input byte 0"),
        ("Pod", r#"{"spec":{"hostNetwork":"yes"}"#, "unexpected end of JSON input"),
        ("Pod", r#"{"spec":1} x"#, "invalid character 'x' after top-level value"),
    ] {
        assert_eq!(canon(kind, text), format!("error: {message}"), "{text}");
    }
}

#[test]
fn unknown_and_repeated_fields_are_reported() {
    let text = r#"{"Kind":"Pod","spec":{"foo":1,"containers":[{"name":"a","bar":{},"env":[{"name":"a","Name":"b"}]}],
        "nodeName":"a","nodeName":"b"},"metadata":{"labels":{"x":"1","x":"2"}},"metadata":{}}"#;
    let decoded = decode("Pod", text).unwrap();
    assert_eq!(
        decoded.strict,
        [
            r#"unknown field "Kind""#,
            r#"unknown field "spec.foo""#,
            r#"unknown field "spec.containers[0].bar""#,
            r#"unknown field "spec.containers[0].env[0].Name""#,
            r#"duplicate field "spec.nodeName""#,
            r#"duplicate field "metadata.labels.x""#,
            r#"duplicate field "metadata""#,
        ]
    );
    assert_eq!(decoded.tree.str_at("spec.nodeName"), "b");
    let ty = builtin().gvk("", "v1", "Pod").unwrap();
    let quiet = Options { unknown: UnknownFields::Ignore, ..Options::default() };
    assert!(decode_json(builtin(), ty, text.as_bytes(), quiet).unwrap().strict.is_empty());
}

#[test]
fn at_most_a_hundred_strict_errors() {
    let fields: Vec<String> = (0..300).map(|i| format!("\"f{i}\":1")).collect();
    assert_eq!(decode("Pod", &format!("{{{}}}", fields.join(","))).unwrap().strict.len(), 100);
}
