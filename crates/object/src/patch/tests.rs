use super::*;
use corten_schema::builtin;

fn run(kind: PatchKind, object: &str, patch: &str) -> String {
    let object = corten_tree::json::parse(object.as_bytes()).unwrap();
    let ty = builtin().gvk("", "v1", "Pod").unwrap();
    match apply(kind, builtin(), ty, object, patch.as_bytes()) {
        Ok(patched) if patched.strict.is_empty() => patched.tree.to_string(),
        Ok(patched) => format!("{} {:?}", patched.tree, patched.strict),
        Err(error) => format!("{error:?}"),
    }
}

fn check(kind: PatchKind, cases: &[(&str, &str, &str)]) {
    for (object, patch, expected) in cases {
        assert_eq!(run(kind, object, patch), *expected, "{object} + {patch}");
    }
}

#[test]
fn json_patches() {
    check(
        PatchKind::Json,
        &[
            (r#"{"a":{}}"#, r#"[{"op":"add","path":"/a/x~1y","value":1}]"#, r#"{"a":{"x/y":1}}"#),
            (
                r#"{"a":[1,3]}"#,
                r#"[{"op":"add","path":"/a/1","value":2},{"op":"add","path":"/a/-","value":4}]"#,
                r#"{"a":[1,2,3,4]}"#,
            ),
            (r#"{"a":[1,2]}"#, r#"[{"op":"remove","path":"/a/-1"}]"#, r#"{"a":[1]}"#),
            (r#"{"a":1}"#, r#"[{"op":"replace","path":"/b","value":2}]"#, r#"{"a":1,"b":2}"#),
            (
                r#"{"a":1}"#,
                r#"[{"op":"move","from":"/a","path":"/b"},{"op":"copy","from":"/b","path":"/c"}]"#,
                r#"{"b":1,"c":1}"#,
            ),
            (
                r#"{"a":{"x":1,"y":2}}"#,
                r#"[{"op":"test","path":"/a","value":{"y":2,"x":1}}]"#,
                r#"{"a":{"x":1,"y":2}}"#,
            ),
            (r#"{}"#, r#"[{"op":"test","path":"/a","value":null}]"#, "{}"),
            (
                r#"{"a":1}"#,
                r#"[{"op":"test","path":"/a","value":2}]"#,
                r#"Unprocessable("testing value /a failed: test failed")"#,
            ),
            (
                r#"{}"#,
                r#"[{"op":"add","path":"/a/b","value":1}]"#,
                r#"Unprocessable("add operation does not apply: doc is missing path: \"/a/b\": missing value")"#,
            ),
            (
                r#"{}"#,
                r#"[{"op":"remove","path":"/a"}]"#,
                r#"Unprocessable("error in remove for path: '/a': Unable to remove nonexistent key: a: missing value")"#,
            ),
            (
                r#"{"a":[]}"#,
                r#"[{"op":"add","path":"/a/5","value":1}]"#,
                r#"Unprocessable("error in add for path: '/a/5': Unable to access invalid index: 5: invalid index referenced")"#,
            ),
            (r#"{}"#, r#"[{"op":"frob"}]"#, r#"Unprocessable("Unexpected kind: frob")"#),
            (
                r#"{}"#,
                r#"{}"#,
                r#"BadRequest("error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp")"#,
            ),
            (
                r#"{}"#,
                r#"[{"op":"add","path":"/a","value":1,"x":1}]"#,
                r#"{"a":1} ["json patch unknown field \"[0].x\""]"#,
            ),
        ],
    );
    let many = format!("[{}]", vec![r#"{"op":"test","path":"/a"}"#; OPERATIONS_MAX + 1].join(","));
    assert!(run(PatchKind::Json, "{}", &many).starts_with("TooLarge"));
}

#[test]
fn merge_patches() {
    check(
        PatchKind::Merge,
        &[
            (r#"{"a":{"b":1,"c":2}}"#, r#"{"a":{"b":null,"d":{"e":null}}}"#, r#"{"a":{"c":2,"d":{}}}"#),
            (r#"{"a":[1]}"#, r#"{"a":[2,{"x":null}]}"#, r#"{"a":[2,{}]}"#),
            (r#"{"a":1}"#, r#"{"a":{"x":null,"y":1}}"#, r#"{"a":{"y":1}}"#),
            (r#"{}"#, r#"{"a":1,"a":2}"#, r#"{"a":2} ["duplicate field \"a\""]"#),
            (r#"{}"#, "null", r#"BadRequest("Invalid JSON Patch")"#),
            (
                r#"{}"#,
                "[]",
                r#"BadRequest("error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}")"#,
            ),
        ],
    );
}

#[test]
fn strategic_lists() {
    let pod = r#"{"spec":{"containers":[{"name":"a","image":"1","env":[{"name":"X","value":"1"}]},{"name":"b"}]}}"#;
    check(
        PatchKind::Strategic,
        &[
            (
                pod,
                r#"{"spec":{"containers":[{"name":"a","image":"2","env":[{"name":"Y","value":"2"}]}]}}"#,
                r#"{"spec":{"containers":[{"name":"a","image":"2","env":[{"name":"Y","value":"2"},{"name":"X","value":"1"}]},{"name":"b"}]}}"#,
            ),
            (
                pod,
                r#"{"spec":{"containers":[{"name":"a","$patch":"delete"},{"name":"c"}]}}"#,
                r#"{"spec":{"containers":[{"name":"c"},{"name":"b"}]}}"#,
            ),
            (
                pod,
                r#"{"spec":{"containers":[{"$patch":"replace"},{"name":"c"}]}}"#,
                r#"{"spec":{"containers":[{"name":"c"}]}}"#,
            ),
            (
                pod,
                r#"{"spec":{"$setElementOrder/containers":[{"name":"b"},{"name":"a"}],"containers":[{"name":"b","image":"3"}]}}"#,
                r#"{"spec":{"containers":[{"name":"b","image":"3"},{"name":"a","image":"1","env":[{"name":"X","value":"1"}]}]}}"#,
            ),
            (pod, r#"{"spec":{"containers":null}}"#, r#"{"spec":{}}"#),
            (
                pod,
                r#"{"spec":{"containers":[{"image":"2"}]}}"#,
                r#"Internal("map: map[image:2] does not contain declared merge key: name")"#,
            ),
            (
                r#"{"spec":{"tolerations":[{"key":"a"}]}}"#,
                r#"{"spec":{"tolerations":[{"key":"b"}]}}"#,
                r#"{"spec":{"tolerations":[{"key":"b"}]}}"#,
            ),
            (
                r#"{"metadata":{"finalizers":["a","b","c"]}}"#,
                r#"{"metadata":{"$deleteFromPrimitiveList/finalizers":["b"],"finalizers":["d","a"]}}"#,
                r#"{"metadata":{"finalizers":["d","a","c"]}}"#,
            ),
            (
                r#"{"metadata":{"finalizers":["a","b","c"]}}"#,
                r#"{"metadata":{"$setElementOrder/finalizers":["c","a"],"$deleteFromPrimitiveList/finalizers":["b"]}}"#,
                r#"{"metadata":{"finalizers":["c","a"]}}"#,
            ),
            (
                r#"{"spec":{"containers":[{"name":"a","args":["x"]}]}}"#,
                r#"{"spec":{"containers":[{"name":"a","args":["y"]}]}}"#,
                r#"{"spec":{"containers":[{"name":"a","args":["y"]}]}}"#,
            ),
        ],
    );
}

#[test]
fn strategic_maps() {
    check(
        PatchKind::Strategic,
        &[
            (
                r#"{"metadata":{"labels":{"a":"1","b":"2"}}}"#,
                r#"{"metadata":{"labels":{"a":null,"c":"3","d":null}}}"#,
                r#"{"metadata":{"labels":{"b":"2","c":"3"}}}"#,
            ),
            (
                r#"{"metadata":{"labels":{"a":"1"}}}"#,
                r#"{"metadata":{"labels":{"$patch":"replace","c":"3"}}}"#,
                r#"{"metadata":{"labels":{"c":"3"}}}"#,
            ),
            (
                r#"{"metadata":{"labels":{"a":"1"}}}"#,
                r#"{"metadata":{"labels":{"$patch":"delete"}}}"#,
                r#"{"metadata":{"labels":{}}}"#,
            ),
            (
                r#"{"spec":{"volumes":[{"name":"v","emptyDir":{}}]}}"#,
                r#"{"spec":{"volumes":[{"name":"v","$retainKeys":["name","hostPath"],"hostPath":{"path":"/x"}}]}}"#,
                r#"{"spec":{"volumes":[{"name":"v","hostPath":{"path":"/x"}}]}}"#,
            ),
            (
                r#"{"spec":{"volumes":[{"name":"v","emptyDir":{}}]}}"#,
                r#"{"spec":{"volumes":[{"name":"v","$retainKeys":["name"],"hostPath":{}}]}}"#,
                r#"BadRequest("invalid patch format of retainKeys")"#,
            ),
            (
                r#"{"spec":{}}"#,
                r#"{"spec":{"nodeSelector":{"a":null,"b":"1"},"x":null}}"#,
                r#"{"spec":{"nodeSelector":{"b":"1"}}}"#,
            ),
            (
                r#"{"spec":{}}"#,
                r#"{"spec":{"$patch":"frob"}}"#,
                r#"Internal("unknown patch type: frob in map: map[$patch:frob]")"#,
            ),
        ],
    );
}

#[test]
fn an_item_between_live_ones_keeps_its_place() {
    let live = r#"{"spec":{"containers":[{"name":"a"},{"name":"b"},{"name":"c"}]}}"#;
    let patch = r#"{"spec":{"$setElementOrder/containers":[{"name":"a"},{"name":"x"},{"name":"c"}],"containers":[{"name":"x"}]}}"#;
    assert_eq!(
        run(PatchKind::Strategic, live, patch),
        r#"{"spec":{"containers":[{"name":"a"},{"name":"x"},{"name":"b"},{"name":"c"}]}}"#
    );
}
