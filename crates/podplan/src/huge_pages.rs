//! Huge pages: what containers may use of each size, and the size of a volume's pages.
//!
//! Upstream: `pkg/apis/core/v1/helper/helpers.go`, `pkg/volume/emptydir/empty_dir.go` `getPageSizeMountOption`.

use std::collections::BTreeMap;

use corten_views::requests::pod_requests;
use corten_views::{Container, Pod, Quantity};

const RESOURCE: &str = "hugepages-";
const MEDIUM: &str = "HugePages";

/// Bytes by the size of the page, in bytes. Sizes that are not there may not be used at all.
pub type Limits = BTreeMap<u64, u64>;

/// The page's size in a resource's name, as `hugepages-2Mi`.
fn page_bytes(resource: &str) -> Option<u64> {
    let size = Quantity::parse(resource.strip_prefix(RESOURCE)?)?.value();
    u64::try_from(size).ok().filter(|bytes| *bytes > 0)
}

fn limits<'a>(amounts: impl Iterator<Item = (&'a str, i64)>) -> Limits {
    amounts.filter_map(|(name, amount)| Some((page_bytes(name)?, u64::try_from(amount).unwrap_or(0)))).collect()
}

/// What a container may use (`GetHugepageLimitsFromResources`); without limits of its own the pod's, if it has some.
pub fn of_container(pod: &Pod, container: &Container) -> Limits {
    let own = limits(container.resources.limits.iter().map(|(name, q)| (name.as_str(), q.value())));
    match &pod.spec.resources {
        Some(whole) if own.is_empty() => limits(whole.limits.iter().map(|(name, q)| (name.as_str(), q.value()))),
        _ => own,
    }
}

/// What the containers of a pod may use together (`ResourceConfigForPod`). Requests and limits are the same.
pub fn of_pod(pod: &Pod) -> Limits {
    limits(pod_requests(pod).iter())
}

/// The size of the pages of a volume in bytes; `None` if the medium is none of huge pages.
///
/// # Errors
/// Upstream's words where the pod asks for no such pages.
pub fn of_medium(pod: &Pod, medium: &str) -> Result<Option<u64>, String> {
    let Some(size) = medium.strip_prefix(MEDIUM) else { return Ok(None) };
    let wanted = match size.strip_prefix('-') {
        None if size.is_empty() => None,
        Some(size) if Quantity::parse(size).is_some() => page_bytes(&format!("{RESOURCE}{size}")),
        _ => return Ok(None),
    };
    let of_pod = pod.spec.resources.iter().flat_map(|r| r.requests.keys());
    let containers = pod.spec.containers.iter().chain(&pod.spec.init_containers);
    let mut found = None;
    for name in of_pod.chain(containers.flat_map(|c| c.resources.requests.keys())) {
        let Some(bytes) = page_bytes(name) else { continue };
        match (wanted, found) {
            (None, Some(other)) if other != bytes => {
                return Err(format!("medium: {medium} can't be used if container requests multiple huge page sizes"));
            }
            (Some(wanted), _) if wanted != bytes => {}
            _ => found = Some(bytes),
        }
    }
    let none =
        || format!("medium {medium}: hugePages storage requested, but there is no resource request for huge pages");
    found.map(Some).ok_or_else(none)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(resources: [&str; 2]) -> Pod {
        let both = |amounts: &str| format!(r#"{{"requests":{{{amounts}}},"limits":{{{amounts}}}}}"#);
        let [one, two] = resources.map(both);
        let json = format!(
            r#"{{"metadata":{{"name":"p"}},"spec":{{"containers":[{{"name":"a","resources":{one}}},{{"name":"b","resources":{two}}}]}}}}"#
        );
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn hugepages_of_containers_and_pods() {
        let pod = pod([r#""hugepages-2Mi":"4Mi","memory":"1Gi""#, r#""hugepages-2Mi":"2Mi","hugepages-1Gi":"1Gi""#]);
        let mib = |n: u64| n << 20;
        assert_eq!(of_container(&pod, &pod.spec.containers[0]), Limits::from([(mib(2), mib(4))]));
        assert_eq!(of_pod(&pod), Limits::from([(mib(2), mib(6)), (mib(1024), mib(1024))]));
    }

    #[test]
    fn empty_dir_medium_hugepages_takes_the_size_that_is_asked_for() {
        let two = r#""hugepages-2Mi":"4Mi""#;
        let both = pod([two, r#""hugepages-1Gi":"1Gi""#]);
        assert_eq!(of_medium(&pod([two, two]), "HugePages"), Ok(Some(2 << 20)));
        assert_eq!(of_medium(&both, "HugePages-1Gi"), Ok(Some(1 << 30)));
        assert_eq!(of_medium(&both, "HugePages-2Mi"), Ok(Some(2 << 20)));
        assert_eq!(
            of_medium(&both, "HugePages").unwrap_err(),
            "medium: HugePages can't be used if container requests multiple huge page sizes"
        );
        assert_eq!(
            of_medium(&pod(["", ""]), "HugePages-2Mi").unwrap_err(),
            "medium HugePages-2Mi: hugePages storage requested, but there is no resource request for huge pages"
        );
        assert_eq!(of_medium(&both, "Memory"), Ok(None));
        assert_eq!(of_medium(&both, "HugePagesX"), Ok(None));
    }
}
