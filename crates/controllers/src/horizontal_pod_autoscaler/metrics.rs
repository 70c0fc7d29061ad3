//! What an autoscaler's metrics say: where they are read, and what follows from each (`metrics/client.go`, `horizontal.go`).

use corten_kinds::id;
use corten_object::{LabelSelector, time};
use corten_schema::scalars::{Quantity, QuantityFormat, duration};
use corten_tree::{Tree, tree};
use jiff::SignedDuration;

use super::replicas::{PodMetric, PodMetrics, Scaled, requests};
use crate::{World, go_text};

const CUSTOM: &str = "custom.metrics.k8s.io";
/// What a metric of the custom API that names no window was measured over.
const WINDOW: SignedDuration = SignedDuration::from_secs(60);

/// A size that a metric asks for.
#[derive(Debug)]
pub(super) struct Proposal {
    pub replicas: i64,
    /// What the metric is called in messages.
    pub metric: String,
    /// `autoscaling/v2 MetricStatus`
    pub status: Tree,
}

/// Why a metric asks for nothing.
#[derive(Debug)]
pub(super) struct Unable {
    /// Of condition and event.
    pub reason: &'static str,
    /// What the condition and the event say.
    pub why: String,
    /// What the autoscaler as a whole says.
    pub message: String,
}

/// A quantity's text, read.
pub(super) fn quantity(text: &str) -> Option<Quantity> {
    text.parse().ok()
}

fn milli(tree: Option<&Tree>) -> Option<i64> {
    match tree? {
        Tree::Str(text) => Some(quantity(text)?.milli_value()),
        Tree::Int(n) => n.checked_mul(1000),
        _ => None,
    }
}

fn decimal(milli: i64) -> String {
    Quantity::from_milli(milli, QuantityFormat::DecimalSi).to_string()
}

/// Text as it stands in a query or a path's segment.
fn escape(text: &str) -> String {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-._~".contains(b);
    text.bytes().map(|b| if plain(&b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// One metric of an autoscaler.
pub(super) struct Metric<'m> {
    pub spec: &'m Tree,
    pub namespace: &'m str,
    /// The text of the selector of what is scaled.
    pub selector: &'m str,
    pub world: &'m World<'m>,
}

impl Metric<'_> {
    /// The part of the specification that the type names, and the type's field.
    fn source(&self) -> (&'static str, Tree) {
        let field = match self.spec.str_at("type") {
            "Object" => "object",
            "Pods" => "pods",
            "Resource" => "resource",
            "ContainerResource" => "containerResource",
            "External" => "external",
            _ => "",
        };
        (field, self.spec.get(field).cloned().unwrap_or_default())
    }

    /// Where the metric is read; an error says why it cannot be.
    pub fn path(&self) -> Result<String, String> {
        let (field, source) = self.source();
        let namespace = self.namespace;
        let metric = escape(source.str_at("metric.name"));
        let metric_selector = || {
            let selector = source.at(&["metric", "selector"]).filter(|s| !s.is_null());
            let parsed = selector.map(|s| LabelSelector::from_tree(Some(s))).transpose()?;
            Ok::<String, String>(escape(&parsed.map(|s| s.to_string()).unwrap_or_default()))
        };
        let selector = escape(self.selector);
        match field {
            "resource" | "containerResource" => {
                Ok(format!("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods?labelSelector={selector}"))
            }
            "external" => {
                let selector = metric_selector()?;
                let base = format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}");
                Ok(format!("{base}/{metric}?labelSelector={selector}"))
            }
            "pods" => {
                let base = format!("/apis/{CUSTOM}/{}/namespaces/{namespace}", self.custom_version()?);
                let metric_selector = metric_selector()?;
                Ok(format!("{base}/pods/*/{metric}?labelSelector={selector}&metricLabelSelector={metric_selector}"))
            }
            "object" => self.object_path(&source, &metric, &metric_selector()?),
            _ => Err(format!("unknown metric source type {:?}", self.spec.str_at("type"))),
        }
    }

    fn object_path(&self, source: &Tree, metric: &str, metric_selector: &str) -> Result<String, String> {
        let base = format!("/apis/{CUSTOM}/{}", self.custom_version()?);
        let query = format!("?metricLabelSelector={metric_selector}");
        let (api_version, kind) = (source.str_at("describedObject.apiVersion"), source.str_at("describedObject.kind"));
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        let namespace = self.namespace;
        if group.is_empty() && kind == "Namespace" {
            return Ok(format!("{base}/namespaces/{namespace}/metrics/{metric}{query}"));
        }
        let Some(row) = self.world.state.registry().group_kind(group, kind) else {
            let known = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
            return Err(format!(
                "unable to map kind {known} to resource: no matches for kind \"{kind}\" in group \"{group}\""
            ));
        };
        let resource = if group.is_empty() { row.plural.to_string() } else { format!("{}.{group}", row.plural) };
        let name = escape(source.str_at("describedObject.name"));
        Ok(format!("{base}/namespaces/{namespace}/{resource}/{name}/{metric}{query}"))
    }

    /// The version of the custom metrics API that is there.
    fn custom_version(&self) -> Result<&'static str, String> {
        let there =
            |version: &&str| self.world.state.find(id::API_SERVICE, "", &format!("{version}.{CUSTOM}")).is_some();
        let versions = ["v1beta2", "v1beta1"];
        versions.into_iter().find(there).ok_or_else(|| format!("no custom metrics API ({CUSTOM}) registered"))
    }

    /// What was read, or why nothing was; `api` is what messages call the API.
    fn read(&self, api: &str) -> Result<Tree, String> {
        let fetched = |why: String| format!("unable to fetch metrics from {api} metrics API: {why}");
        let path = self.path().map_err(fetched)?;
        let resource = match api {
            "resource" => String::from("pods.metrics.k8s.io"),
            "external" => format!("{}.external.metrics.k8s.io", self.source().1.str_at("metric.name")),
            _ => format!("pods.{CUSTOM}"),
        };
        match self.world.last.and_then(|last| last.answer(&path)) {
            Some(Ok(list)) if list.list_at("items").is_empty() => {
                Err(format!("no metrics returned from {api} metrics API"))
            }
            Some(Ok(list)) => Ok(list.clone()),
            // A page that is no Status: client-go's own words.
            Some(Err(status)) if status.is_not_found() && status.name.is_empty() => {
                Err(fetched(format!("{} (get {resource})", "the server could not find the requested resource")))
            }
            Some(Err(status)) => Err(fetched(status.message.clone())),
            None => Err(fetched("it was not read".into())),
        }
    }

    /// Usage by pod from the resource metrics API (`getPodMetrics`, `getContainerMetrics`).
    fn resource_metrics(&self, resource: &str, container: &str) -> Result<PodMetrics, String> {
        let list =
            self.read("resource").map_err(|why| format!("unable to get metrics for resource {resource}: {why}"))?;
        let mut out = PodMetrics::new();
        for item in list.list_at("items") {
            let containers = item.list_at("containers");
            let used = |c: &Tree| milli(c.at(&["usage", resource]));
            let value = match container {
                "" if containers.is_empty() => None,
                "" => containers.iter().try_fold(0i64, |sum, c| Some(sum.saturating_add(used(c)?))),
                name => containers.iter().find(|c| c.str_at("name") == name).and_then(used),
            };
            let Some(value) = value else { continue };
            let window =
                duration::parse(item.str_at("window")).map_or(SignedDuration::ZERO, SignedDuration::from_nanos);
            let at = time::parse(item.str_at("timestamp")).unwrap_or(self.world.now);
            out.insert(item.str_at("metadata.name").to_owned(), PodMetric { value, at, window });
        }
        Ok(out)
    }

    /// What the metric asks for.
    pub fn propose(&self, scaled: &Scaled<'_>) -> Result<Proposal, Unable> {
        let (field, source) = self.source();
        match field {
            "resource" => self.resource(scaled, &source, "").map_err(|why| {
                let message = format!("failed to get {} resource metric value: {why}", source.str_at("name"));
                Unable { reason: "FailedGetResourceMetric", why, message }
            }),
            "containerResource" => {
                let container = source.str_at("container");
                self.resource(scaled, &source, container).map_err(|why| {
                    let message = format!("failed to get {container} container metric value: {why}");
                    Unable { reason: "FailedGetContainerResourceMetric", why, message }
                })
            }
            "pods" => self.pods(scaled, &source).map_err(|why| {
                let message = format!("failed to get pods metric value: {why}");
                Unable { reason: "FailedGetPodsMetric", why, message }
            }),
            "object" => self.object(scaled, &source),
            "external" => self.external(scaled, &source),
            _ => {
                let why = format!("unknown metric source type {:?}", self.spec.str_at("type"));
                Err(Unable { reason: "InvalidMetricSourceType", message: why.clone(), why })
            }
        }
    }

    fn resource(&self, scaled: &Scaled<'_>, source: &Tree, container: &str) -> Result<Proposal, String> {
        let resource = source.str_at("name");
        let is_cpu = resource == "cpu";
        let format = if resource == "memory" { QuantityFormat::BinarySi } else { QuantityFormat::DecimalSi };
        let text = |milli| Quantity::from_milli(milli, format).to_string();
        let target = source.get("target").cloned().unwrap_or_default();
        let (replicas, current, metric) = if let Some(wanted) = milli(target.get("averageValue")) {
            let failed = |why| format!("failed to get {resource} usage: {why}");
            let metrics = self.resource_metrics(resource, container).map_err(failed)?;
            let (replicas, average) = scaled.by_average(metrics, wanted, is_cpu).map_err(failed)?;
            (replicas, tree!({"averageValue": (text(average))}), format!("{resource} resource"))
        } else if let Some(wanted) = target.i64_at("averageUtilization") {
            let failed = |why| format!("failed to get {resource} utilization: {why}");
            let metrics = self.resource_metrics(resource, container).map_err(failed)?;
            let requests = requests(scaled.pods, container, resource);
            let (replicas, percent, average) =
                scaled.by_utilization(metrics, requests, wanted, is_cpu).map_err(failed)?;
            let of = if container.is_empty() { "resource" } else { "container resource" };
            let metric = format!("{resource} {of} utilization (percentage of request)");
            (replicas, tree!({"averageValue": (text(average)), "averageUtilization": (percent)}), metric)
        } else {
            let why = "invalid resource metric source: neither an average utilization target nor an average value (usage) \
                       target was set";
            return Err(why.into());
        };
        let status = if container.is_empty() {
            tree!({"type": "Resource", "resource": {"name": (resource), "current": (current)}})
        } else {
            tree!({"type": "ContainerResource",
                "containerResource": {"name": (resource), "current": (current), "container": (container)}})
        };
        Ok(Proposal { replicas, metric, status })
    }

    fn pods(&self, scaled: &Scaled<'_>, source: &Tree) -> Result<Proposal, String> {
        let name = source.str_at("metric.name");
        let list = self.read("custom").map_err(|why| format!("unable to get metric {name}: {why}"))?;
        let mut metrics = PodMetrics::new();
        for item in list.list_at("items") {
            let window = ["windowSeconds", "window"].iter().find_map(|f| item.i64_at(f));
            let metric = PodMetric {
                value: milli(item.get("value")).unwrap_or(0),
                at: time::parse(item.str_at("timestamp")).unwrap_or(self.world.now),
                window: window.map_or(WINDOW, SignedDuration::from_secs),
            };
            metrics.insert(item.str_at("describedObject.name").to_owned(), metric);
        }
        let target = milli(source.at(&["target", "averageValue"])).unwrap_or(0);
        let (replicas, average) = scaled.by_average(metrics, target, false)?;
        let status = tree!({"type": "Pods",
            "pods": {"metric": (identifier(source)), "current": {"averageValue": (decimal(average))}}});
        Ok(Proposal { replicas, metric: format!("pods metric {name}"), status })
    }

    fn object(&self, scaled: &Scaled<'_>, source: &Tree) -> Result<Proposal, Unable> {
        let (name, kind) = (source.str_at("metric.name"), source.str_at("describedObject.kind"));
        let failed = |why: String, inner: Option<&str>| {
            let inner = inner.map(|inner| format!("{inner}: ")).unwrap_or_default();
            let message = format!("failed to get object metric value: {inner}{why}");
            Unable { reason: "FailedGetObjectMetric", why, message }
        };
        let value = || {
            let about = format!("{kind} {}/{}", self.namespace, source.str_at("describedObject.name"));
            let list = self.read("custom").map_err(|why| format!("unable to get metric {name} on {about}: {why}"))?;
            match list.list_at("items") {
                [only] => Ok(milli(only.get("value")).unwrap_or(0)),
                several => Err(format!(
                    "unable to get metric {name} on {about}: unable to fetch metrics from custom metrics API: the custom \
                     metrics API server returned {} results when we asked for exactly one",
                    several.len()
                )),
            }
        };
        let target = source.get("target").cloned().unwrap_or_default();
        let (replicas, current, metric) = match target.str_at("type") {
            "Value" if target.get("value").is_some() => {
                let usage = value().map_err(|why| failed(why, None))?;
                let wanted = milli(target.get("value")).unwrap_or(0);
                let replicas = scaled.by_value(usage, wanted).map_err(|why| failed(why, None))?;
                (replicas, tree!({"value": (decimal(usage))}), format!("{kind} metric {name}"))
            }
            "AverageValue" if target.get("averageValue").is_some() => {
                let inner = format!("failed to get {name} object metric");
                let usage = value().map_err(|why| failed(why, Some(&inner)))?;
                let (replicas, share) = scaled.by_share(usage, milli(target.get("averageValue")).unwrap_or(0));
                let selector = go_text::selector(source.at(&["metric", "selector"]));
                (replicas, tree!({"averageValue": (decimal(share))}), format!("external metric {name}({selector})"))
            }
            _ => {
                let why = "invalid object metric source: neither a value target nor an average value target was set";
                return Err(failed(why.into(), None));
            }
        };
        let described = source.get("describedObject").cloned().unwrap_or_default();
        let status = tree!({"type": "Object", "object": {"metric": (identifier(source)), "current": (current),
            "describedObject": (described)}});
        Ok(Proposal { replicas, metric, status })
    }

    fn external(&self, scaled: &Scaled<'_>, source: &Tree) -> Result<Proposal, Unable> {
        let name = source.str_at("metric.name");
        let selector = go_text::selector(source.at(&["metric", "selector"]));
        let failed = |why: String, inner: &str| {
            let message = format!("failed to get {name} external metric value: {inner}{why}");
            Unable { reason: "FailedGetExternalMetric", why, message }
        };
        let value = || {
            let list = self.read("external");
            let list = list
                .map_err(|why| format!("unable to get external metric {}/{name}/{selector}: {why}", self.namespace))?;
            Ok(list
                .list_at("items")
                .iter()
                .fold(0i64, |sum, item| sum.saturating_add(milli(item.get("value")).unwrap_or(0))))
        };
        let target = source.get("target").cloned().unwrap_or_default();
        let (replicas, current) = if let Some(wanted) = milli(target.get("averageValue")) {
            let usage = value().map_err(|why| failed(why, &format!("failed to get {name} external metric: ")))?;
            let (replicas, share) = scaled.by_share(usage, wanted);
            (replicas, tree!({"averageValue": (decimal(share))}))
        } else if let Some(wanted) = milli(target.get("value")) {
            let inner = format!("failed to get external metric {name}: ");
            let usage = value().map_err(|why| failed(why, &inner))?;
            let replicas = scaled.by_value(usage, wanted).map_err(|why| failed(why, &inner))?;
            (replicas, tree!({"value": (decimal(usage))}))
        } else {
            let why = "invalid external metric source: neither a value target nor an average value target was set";
            return Err(failed(why.into(), ""));
        };
        let status = tree!({"type": "External",
            "external": {"metric": (identifier(source)), "current": (current)}});
        Ok(Proposal { replicas, metric: format!("external metric {name}({selector})"), status })
    }
}

/// `autoscaling/v2 MetricIdentifier`
fn identifier(source: &Tree) -> Tree {
    let mut out = tree!({"name": (source.str_at("metric.name"))});
    if let Some(selector) = source.at(&["metric", "selector"]).filter(|s| !s.is_null()) {
        out.insert("selector", selector.clone());
    }
    out
}
