//! kubectl's ways to apply, and kinds that users define.

use anyhow::{Result, bail};
use corten_testkit::cluster::Cluster;

use crate::{contains, jsonpath, namespace};

/// A definition with all that kubectl shows of one.
const GADGETS: &str = "apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gadgets.shop.example.com}
spec:
  group: shop.example.com
  scope: Namespaced
  names: {kind: Gadget, plural: gadgets, singular: gadget, shortNames: [gd], categories: [shop]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources:
      status: {}
      scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}
    selectableFields:
    - jsonPath: .spec.color
    additionalPrinterColumns:
    - {name: Color, type: string, jsonPath: .spec.color}
    - {name: Wanted, type: integer, jsonPath: .spec.replicas}
    - {name: Inner, type: string, jsonPath: .spec.note, priority: 1}
    schema:
      openAPIV3Schema:
        type: object
        description: A gadget of the shop.
        properties:
          spec:
            type: object
            required: [color]
            properties:
              color: {type: string, description: What it looks like., enum: [red, blue]}
              note: {type: string}
              replicas: {type: integer, format: int32, minimum: 0, default: 1}
            x-kubernetes-validations:
            - {rule: 'self.color == oldSelf.color', message: the color stays}
          status:
            type: object
            properties:
              replicas: {type: integer, format: int32}
";

/// Waits until a kind is served. A new definition has no list of conditions yet, on which `--for=condition` fails: names come with them.
fn established(cluster: &Cluster, plural: &str, kind: &str) -> Result<()> {
    let crd = format!("crd/{plural}.shop.example.com");
    for state in [format!("jsonpath={{.status.acceptedNames.kind}}={kind}"), "condition=Established".into()] {
        cluster.kubectl(&["wait", &format!("--for={state}"), &crd, "--timeout=30s"])?;
    }
    Ok(())
}

/// Short names, categories, columns, explain, field selectors, scale and validation of a kind that a user defined.
pub(crate) fn custom_resources(cluster: &mut Cluster) -> Result<()> {
    namespace(cluster, "gadgets")?;
    let n = |args: &[&str]| cluster.kubectl(&[&["-n", "gadgets"], args].concat());
    let apply = |text: &str| cluster.kubectl_with(&["-n", "gadgets", "apply", "-f", "-"], text);
    let refused = |text: &str| cluster.kubectl_fails(&["-n", "gadgets", "apply", "-f", "-"], text);
    let gadget = |name: &str, spec: &str| {
        format!("apiVersion: shop.example.com/v1\nkind: Gadget\nmetadata: {{name: {name}}}\nspec: {spec}\n")
    };
    contains(&apply(GADGETS)?, "created")?;
    established(cluster, "gadgets", "Gadget")?;
    contains(&apply(&gadget("one", "{color: red, note: behind the door}"))?, "gadget.shop.example.com/one created")?;
    contains(&apply(&gadget("two", "{color: blue, replicas: 4}"))?, "created")?;

    let table = n(&["get", "gd"])?;
    let rows: Vec<Vec<&str>> = table.lines().map(|l| l.split_whitespace().collect()).collect();
    if rows != [vec!["NAME", "COLOR", "WANTED"], vec!["one", "red", "1"], vec!["two", "blue", "4"]] {
        bail!("the table of gadgets is:\n{table}");
    }
    contains(&n(&["get", "gadgets", "-o", "wide"])?, "behind the door")?;
    contains(&n(&["get", "shop"])?, "one")?;
    let red = n(&["get", "gd", "--field-selector", "spec.color=red", "-o", "name"])?;
    if red.trim() != "gadget.shop.example.com/one" {
        bail!("the red gadgets are {red:?}");
    }
    contains(&n(&["explain", "gadget.spec.color"])?, "What it looks like.")?;
    contains(&n(&["explain", "gadget"])?, "A gadget of the shop.")?;
    contains(&n(&["api-resources", "--api-group=shop.example.com"])?, "gd")?;

    contains(&n(&["scale", "gadget/one", "--replicas=3"])?, "scaled")?;
    if jsonpath(cluster, "gadgets", "gadget/one", ".spec.replicas")? != "3" {
        bail!("the gadget was not scaled");
    }
    let patch = ["patch", "gd", "one", "--subresource=status", "--type=merge", "-p", r#"{"status":{"replicas":3}}"#];
    contains(&n(&patch)?, "patched")?;
    contains(&n(&["get", "gd", "one", "--subresource=scale", "-o", "yaml"])?, "kind: Scale")?;

    let unsupported = "spec.color: Unsupported value: \"green\": supported values: \"red\", \"blue\"";
    contains(&refused(&gadget("three", "{color: green}"))?, unsupported)?;
    contains(&refused(&gadget("three", "{}"))?, "spec.color: Required value")?;
    contains(&refused(&gadget("three", "{color: red, size: 1}"))?, "unknown field \"spec.size\"")?;
    contains(&refused(&gadget("one", "{color: blue}"))?, "spec: Invalid value: the color stays")?;
    contains(&n(&["delete", "gd", "--all"])?, "deleted")?;
    contains(&n(&["delete", "crd", "gadgets.shop.example.com", "--timeout=30s"])?, "deleted")?;
    let gone = cluster.kubectl_fails(&["-n", "gadgets", "get", "gadgets"], "")?;
    contains(&gone, "the server could not find the requested resource")?;
    cluster.kubectl(&["delete", "namespace", "gadgets", "--timeout=60s"]).map(drop)
}

/// A definition of the size of a large operator's: too large for the annotation that client-side apply writes.
pub(crate) fn large_definition(cluster: &mut Cluster) -> Result<()> {
    let mut manifest = String::from(
        "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: larges.shop.example.com}\nspec:\n  \
         group: shop.example.com\n  scope: Namespaced\n  names: {kind: Large, plural: larges, singular: large}\n  versions:\n  - name: v1\n    \
         served: true\n    storage: true\n    schema:\n      openAPIV3Schema:\n        type: object\n        properties:\n          spec:\n            \
         type: object\n            properties:\n",
    );
    for i in 0..3000 {
        let text = "A field like the many that a large operator describes at length, for who reads the reference.";
        manifest +=
            &format!("              field{i}: {{type: string, maxLength: 64, description: '{text} Number {i}.'}}\n");
    }
    let error = cluster.kubectl_fails(&["apply", "-f", "-"], &manifest)?;
    let wanted = "The CustomResourceDefinition \"larges.shop.example.com\" is invalid: metadata.annotations: Too long: may not be more \
                  than 262144 bytes";
    contains(&error, wanted)?;
    let server_side = ["apply", "--server-side", "-f", "-"];
    contains(&cluster.kubectl_with(&server_side, &manifest)?, "serverside-applied")?;
    established(cluster, "larges", "Large")?;
    contains(&cluster.kubectl_with(&server_side, &manifest)?, "serverside-applied")?;
    let object = "apiVersion: shop.example.com/v1\nkind: Large\nmetadata: {name: one}\nspec: {field2999: x}\n";
    contains(&cluster.kubectl_with(&server_side, object)?, "serverside-applied")?;
    contains(&cluster.kubectl(&["explain", "large.spec.field2999"])?, "Number 2999")?;
    contains(&cluster.kubectl(&["delete", "crd", "larges.shop.example.com", "--timeout=30s"])?, "deleted")
}

fn config_map(data: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c}}\ndata: {data}\n")
}

/// Conflicts name manager and field; force takes the field over; what is no longer applied goes.
pub(crate) fn server_side(cluster: &mut Cluster) -> Result<()> {
    namespace(cluster, "applied")?;
    let ssa = ["-n", "applied", "apply", "--server-side", "-f", "-"];
    let apply = |data: &str| cluster.kubectl_with(&ssa, &config_map(data));
    contains(&apply("{mine: a, shared: a}")?, "configmap/c serverside-applied")?;
    cluster.kubectl(&[
        "-n",
        "applied",
        "patch",
        "configmap",
        "c",
        "--type=merge",
        "-p",
        r#"{"data":{"shared":"b"}}"#,
    ])?;
    let conflict = cluster.kubectl_fails(&ssa, &config_map("{mine: a, shared: c}"))?;
    contains(&conflict, "Apply failed with 1 conflict: conflict with \"kubectl-patch\" using v1: .data.shared")?;
    contains(&conflict, "--force-conflicts")?;
    let other = [&ssa[..], &["--field-manager=other"]].concat();
    let conflict = cluster.kubectl_fails(&other, &config_map("{mine: x, shared: c}"))?;
    let wanted = "Apply failed with 2 conflicts: conflicts with \"kubectl\":\n- .data.mine\nconflicts with \"kubectl-patch\" using \
                  v1:\n- .data.shared\n";
    contains(&conflict, wanted)?;
    let force = [&ssa[..], &["--force-conflicts"]].concat();
    contains(&cluster.kubectl_with(&force, &config_map("{mine: a, shared: c}"))?, "serverside-applied")?;
    contains(&jsonpath(cluster, "applied", "configmap/c", ".data.shared")?, "c")?;
    apply("{shared: c}")?;
    if !jsonpath(cluster, "applied", "configmap/c", ".data.mine")?.is_empty() {
        bail!("a field that is no longer applied is still there");
    }
    let shown = cluster.kubectl(&["-n", "applied", "get", "configmap", "c", "-o", "yaml", "--show-managed-fields"])?;
    contains(&shown, "f:shared: {}")?;
    contains(&shown, "operation: Apply")?;
    cluster.kubectl(&["delete", "namespace", "applied", "--timeout=60s"]).map(drop)
}

/// What client-side apply owns becomes server-side apply's, so that fields can still be taken away.
pub(crate) fn client_side_to_server_side(cluster: &mut Cluster) -> Result<()> {
    namespace(cluster, "moved")?;
    let with = |args: &[&str], data: &str| {
        cluster.kubectl_with(&[&["-n", "moved"], args, &["-f", "-"]].concat(), &config_map(data))
    };
    contains(&with(&["apply"], "{kept: a, dropped: a}")?, "created")?;
    let managers = || jsonpath(cluster, "moved", "configmap/c", ".metadata.managedFields[*].manager");
    contains(&managers()?, "kubectl-client-side-apply")?;
    contains(&with(&["apply", "--server-side"], "{kept: a, dropped: a}")?, "serverside-applied")?;
    // The second keeps the annotation of client-side apply, which kubectl goes on to write.
    if managers()?.trim() != "kubectl kubectl-last-applied" {
        bail!("after the move the managers are {:?}", managers()?);
    }
    contains(&with(&["apply", "--server-side"], "{kept: b}")?, "serverside-applied")?;
    if jsonpath(cluster, "moved", "configmap/c", ".data")? != "{\"kept\":\"b\"}" {
        bail!("the data is {}", jsonpath(cluster, "moved", "configmap/c", ".data")?);
    }
    cluster.kubectl(&["delete", "namespace", "moved", "--timeout=60s"]).map(drop)
}

/// `kubectl diff` ends with 0 without a difference, 1 with one, more on an error.
pub(crate) fn diff(cluster: &mut Cluster) -> Result<()> {
    corten_testkit::tools::apt("diff", &["diffutils"])?;
    namespace(cluster, "diffs")?;
    let file = cluster.data().join("diff.yaml");
    let path = file.to_string_lossy().into_owned();
    let diff = |manifest: &str, more: &[&str]| -> Result<(Option<i32>, String)> {
        std::fs::write(&file, manifest)?;
        let mut command = cluster.kubectl_command(&[&["-n", "diffs", "diff", "-f", &path], more].concat());
        let output = command.output()?;
        let text = [output.stdout, output.stderr].concat();
        Ok((output.status.code(), String::from_utf8_lossy(&text).into_owned()))
    };
    let expect = |(code, text): (Option<i32>, String), wanted: i32, part: &str| match code {
        Some(code) if code == wanted => contains(&text, part),
        code => bail!("kubectl diff ended with {code:?}, not {wanted}:\n{text}"),
    };
    expect(diff(&config_map("{k: a}"), &[])?, 1, "+  k: a")?;
    cluster.kubectl_with(&["-n", "diffs", "apply", "-f", "-"], &config_map("{k: a}"))?;
    expect(diff(&config_map("{k: a}"), &[])?, 0, "")?;
    expect(diff(&config_map("{k: b}"), &[])?, 1, "-  k: a\n+  k: b")?;
    expect(diff(&config_map("{k: b}"), &["--server-side", "--force-conflicts"])?, 1, "+  k: b")?;
    if jsonpath(cluster, "diffs", "configmap/c", ".data.k")? != "a" {
        bail!("kubectl diff changed the object");
    }
    let invalid = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: 99999}]}\n";
    let (code, text) = diff(invalid, &[])?;
    if code.is_none_or(|code| code <= 1) {
        bail!("kubectl diff of an invalid manifest ended with {code:?}");
    }
    contains(&text, "must be between 1 and 65535")?;
    cluster.kubectl(&["delete", "namespace", "diffs", "--timeout=60s"]).map(drop)
}
