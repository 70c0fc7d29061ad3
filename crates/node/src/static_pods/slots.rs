//! Which static pods run, and which mirror pods the API should have: one slot per name, decided without doing anything.
//!
//! A static pod waits until the one that had its name before has ended (`pkg/kubelet/pod_workers.go` `allowPodStart`). Its mirror is
//! made when it begins, made again when somebody deletes it, and goes when the pod has ended (`pkg/kubelet/kubelet.go`
//! `tryReconcileMirrorPods`, `deleteOrphanedMirrorPods`).

use std::collections::BTreeMap;
use std::sync::Arc;

use corten_object::{Object, Revision};

use super::manifest;

/// Namespace and name.
type Name = (String, String);

/// One thing to do.
#[derive(Debug, Clone)]
pub enum Step {
    /// Begin to run a pod.
    Start(Arc<Object>),
    /// Its manifest has gone or says something else: end the pod.
    Stop(Arc<Object>),
    /// The running pod has another mirror now, or none.
    Mirror(Arc<Object>, Option<Arc<Object>>),
    /// Make a pod's mirror.
    MakeMirror(Arc<Object>),
    /// Delete a mirror, at once.
    RemoveMirror(Arc<Object>),
}

/// How a mirror's making or removal went.
#[derive(Debug)]
pub enum Outcome {
    /// It is there.
    Made(Arc<Object>),
    /// It has gone.
    Removed,
    /// Neither; it is to be looked at again.
    Failed,
}

#[derive(Default)]
struct Slot {
    wanted: Option<Arc<Object>>,
    runs: Option<Arc<Object>>,
    stopping: bool,
    mirror: Option<Arc<Object>>,
    /// The mirror that the running pod was told of.
    told: Option<(String, Revision)>,
    /// A mirror is being made or removed.
    busy: bool,
}

/// All slots of a node.
#[derive(Default)]
pub struct Slots {
    slots: BTreeMap<Name, Slot>,
    /// Whether the API's pods have been seen.
    listed: bool,
}

fn name_of(object: &Object) -> Name {
    (object.head.namespace.to_string(), object.head.name.to_string())
}

impl Slots {
    /// The static pods that manifests ask for; of two with one name the first counts, and the others are returned.
    pub fn want(&mut self, pods: &[Arc<Object>]) -> Vec<Arc<Object>> {
        let mut surplus = Vec::new();
        let mut wanted: BTreeMap<Name, Arc<Object>> = BTreeMap::new();
        for pod in pods {
            match wanted.entry(name_of(pod)) {
                std::collections::btree_map::Entry::Vacant(entry) => drop(entry.insert(pod.clone())),
                std::collections::btree_map::Entry::Occupied(_) => surplus.push(pod.clone()),
            }
        }
        for (name, slot) in &mut self.slots {
            slot.wanted = wanted.remove(name);
        }
        for (name, pod) in wanted {
            self.slots.entry(name).or_default().wanted = Some(pod);
        }
        surplus
    }

    /// A mirror pod is in the API.
    pub fn mirror(&mut self, object: &Arc<Object>) {
        let slot = self.slots.entry(name_of(object)).or_default();
        if slot.mirror.as_ref().is_none_or(|known| known.head.revision <= object.head.revision) {
            slot.mirror = Some(object.clone());
        }
    }

    /// A pod is in the API no more.
    pub fn mirror_gone(&mut self, name: (&str, &str), uid: &str) {
        let name = (name.0.to_owned(), name.1.to_owned());
        if let Some(slot) = self.slots.get_mut(&name)
            && slot.mirror.as_ref().is_some_and(|mirror| mirror.head.uid == *uid)
        {
            slot.mirror = None;
        }
    }

    /// These are all mirror pods that the API has.
    pub fn mirrors(&mut self, objects: &[Arc<Object>]) {
        self.listed = true;
        for slot in self.slots.values_mut() {
            let known = slot.mirror.as_ref().map(|mirror| mirror.head.uid.clone());
            if !objects.iter().any(|object| Some(&object.head.uid) == known.as_ref()) {
                slot.mirror = None;
            }
        }
        objects.iter().for_each(|object| self.mirror(object));
    }

    /// A pod has ended for good. False if it is no static pod.
    pub fn ended(&mut self, uid: &str) -> bool {
        let is_it = |slot: &&mut Slot| slot.runs.as_ref().is_some_and(|pod| pod.head.uid == *uid);
        let Some(slot) = self.slots.values_mut().find(is_it) else { return false };
        (slot.runs, slot.stopping, slot.told) = (None, false, None);
        true
    }

    /// What was asked for a mirror of this name is done.
    pub fn done(&mut self, pod: &Object, outcome: Outcome) {
        let name = name_of(pod);
        if let Outcome::Removed = outcome {
            self.mirror_gone((&name.0, &name.1), &pod.head.uid);
        }
        if let Some(slot) = self.slots.get_mut(&name) {
            slot.busy = false;
        }
        if let Outcome::Made(mirror) = outcome {
            self.mirror(&mirror);
        }
    }

    /// What is to be done now; it counts as begun.
    pub fn steps(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        let listed = self.listed;
        self.slots.retain(|_, slot| {
            slot.run(&mut steps);
            if listed {
                slot.keep_mirror(&mut steps);
            }
            slot.wanted.is_some() || slot.runs.is_some() || slot.mirror.is_some() || slot.busy
        });
        steps
    }
}

impl Slot {
    fn run(&mut self, steps: &mut Vec<Step>) {
        let wanted = self.wanted.as_ref().map(|pod| &pod.head.uid);
        match &self.runs {
            Some(pod) if Some(&pod.head.uid) != wanted && !self.stopping => {
                self.stopping = true;
                steps.push(Step::Stop(pod.clone()));
            }
            None => {
                self.runs = self.wanted.clone();
                steps.extend(self.runs.clone().map(Step::Start));
            }
            Some(_) => {}
        }
    }

    fn keep_mirror(&mut self, steps: &mut Vec<Step>) {
        let fits = |pod: &Object, mirror: &Object| {
            let deleted = mirror.to_tree().path("metadata.deletionTimestamp").is_some();
            !deleted && manifest::mirrored(mirror).is_some_and(|hash| hash == *pod.head.uid)
        };
        let step = match (&self.runs, &self.mirror) {
            // It still tells of the pod that ends.
            (Some(_), _) if self.stopping => None,
            (Some(pod), None) => Some(Step::MakeMirror(pod.clone())),
            (Some(pod), Some(mirror)) => (!fits(pod, mirror)).then(|| Step::RemoveMirror(mirror.clone())),
            (None, Some(mirror)) => Some(Step::RemoveMirror(mirror.clone())),
            (None, None) => None,
        };
        if let Some(pod) = &self.runs {
            let mirror = self.mirror.as_ref().filter(|mirror| fits(pod, mirror));
            let now = mirror.map(|mirror| (mirror.head.uid.to_string(), mirror.head.revision));
            if now != self.told {
                self.told = now;
                steps.push(Step::Mirror(pod.clone(), mirror.cloned()));
            }
        }
        if let Some(step) = step.filter(|_| !self.busy) {
            self.busy = true;
            steps.push(step);
        }
    }
}

#[cfg(test)]
mod tests {
    use corten_kinds::{Registry, id};
    use corten_tree::{Tree, tree};

    use super::*;

    fn object(revision: u64, meta: Tree) -> Arc<Object> {
        let registry = Registry::builtin();
        let facts = &registry.get(id::POD).fact_paths;
        let json = bytes::Bytes::from(tree!({"apiVersion": "v1", "kind": "Pod", "metadata": meta}).to_json());
        Arc::new(Object::parse(id::POD, json, Revision(revision), facts).unwrap())
    }

    fn pod(uid: &str) -> Arc<Object> {
        object(0, tree!({"name": "web-n", "namespace": "default", "uid": uid}))
    }

    fn mirror(revision: u64, uid: &str, of: &str) -> Arc<Object> {
        let annotations = tree!({"kubernetes.io/config.mirror": of});
        object(revision, tree!({"name": "web-n", "namespace": "default", "uid": uid, "annotations": annotations}))
    }

    fn told(slots: &mut Slots) -> String {
        let one = |step: Step| match step {
            Step::Start(pod) => format!("start {}", pod.head.uid),
            Step::Stop(pod) => format!("stop {}", pod.head.uid),
            Step::Mirror(pod, mirror) => {
                format!("{} has {}", pod.head.uid, mirror.map_or("none".into(), |m| m.head.uid.to_string()))
            }
            Step::MakeMirror(pod) => format!("make of {}", pod.head.uid),
            Step::RemoveMirror(mirror) => format!("remove {}", mirror.head.uid),
        };
        slots.steps().into_iter().map(one).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn static_pod_starts_without_the_api_and_has_a_mirror_with_it() {
        let mut slots = Slots::default();
        slots.want(&[pod("a")]);
        assert_eq!(told(&mut slots), "start a");
        assert_eq!(told(&mut slots), "");
        slots.mirrors(&[]);
        assert_eq!(told(&mut slots), "make of a");
        assert_eq!(told(&mut slots), "", "once");
        slots.done(&pod("a"), Outcome::Failed);
        assert_eq!(told(&mut slots), "make of a");
        slots.done(&pod("a"), Outcome::Made(mirror(5, "m1", "a")));
        assert_eq!(told(&mut slots), "a has m1");
        slots.mirror(&mirror(6, "m1", "a"));
        assert_eq!(told(&mut slots), "a has m1", "its status has changed");
    }

    #[test]
    fn mirror_that_is_deleted_comes_back_and_the_pod_goes_on() {
        let mut slots = Slots::default();
        slots.want(&[pod("a")]);
        slots.mirrors(&[mirror(5, "m1", "a")]);
        assert_eq!(told(&mut slots), "start a, a has m1", "an earlier agent has made it");
        slots.mirror_gone(("default", "web-n"), "m1");
        assert_eq!(told(&mut slots), "a has none, make of a");
        slots.done(&pod("a"), Outcome::Made(mirror(7, "m2", "a")));
        assert_eq!(told(&mut slots), "a has m2");
        let marked = object(
            8,
            tree!({"name": "web-n", "namespace": "default", "uid": "m2", "deletionTimestamp": "2026-01-02T03:04:05Z",
                "annotations": {"kubernetes.io/config.mirror": "a"}}),
        );
        slots.mirror(&marked);
        assert_eq!(told(&mut slots), "a has none, remove m2", "a graceful deletion waits for its node");
        slots.done(&marked, Outcome::Removed);
        assert_eq!(told(&mut slots), "make of a");
    }

    #[test]
    fn static_pod_changed_waits_for_the_end_of_the_one_before() {
        let mut slots = Slots::default();
        slots.want(&[pod("a")]);
        slots.mirrors(&[mirror(5, "m1", "a")]);
        told(&mut slots);
        slots.want(&[pod("b")]);
        assert_eq!(told(&mut slots), "stop a");
        slots.want(&[pod("c")]);
        assert_eq!(told(&mut slots), "", "b never ran");
        assert!(!slots.ended("b"));
        assert!(slots.ended("a"));
        assert_eq!(told(&mut slots), "start c, remove m1");
        slots.done(&mirror(5, "m1", "a"), Outcome::Removed);
        assert_eq!(told(&mut slots), "make of c");
    }

    #[test]
    fn static_pod_removed_ends_and_then_its_mirror_goes() {
        let mut slots = Slots::default();
        slots.want(&[pod("a")]);
        slots.mirrors(&[mirror(5, "m1", "a")]);
        told(&mut slots);
        slots.want(&[]);
        assert_eq!(told(&mut slots), "stop a");
        assert!(slots.ended("a"));
        assert_eq!(told(&mut slots), "remove m1");
        slots.done(&mirror(5, "m1", "a"), Outcome::Removed);
        assert_eq!(told(&mut slots), "");
        assert!(slots.slots.is_empty());
    }

    #[test]
    fn mirror_without_a_static_pod_is_removed_and_twins_are_told() {
        let mut slots = Slots::default();
        slots.mirrors(&[mirror(5, "m1", "x")]);
        assert_eq!(told(&mut slots), "remove m1");
        let surplus = slots.want(&[pod("a"), pod("b")]);
        assert_eq!(surplus.len(), 1);
        assert_eq!(surplus[0].head.uid, "b");
    }
}
