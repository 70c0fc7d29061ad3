//! Objects that are made of what nodes measure, when they are asked for.

use std::sync::Arc;

use corten_base::Revision;
use corten_kinds::Kind;
use corten_kinds::usage::Measured;
use corten_object::{Object, Status};
use corten_tree::Tree;

use super::Request;
use super::read::{ListRequest, Listed};
use crate::core::Core;

impl Core {
    /// All objects of a kind that is measured.
    fn measured(&self, kind: &Kind, measured: &Measured) -> Vec<Arc<Object>> {
        let world = self.cache.read();
        let made = self.node_api.usage().iter().flat_map(|usage| (measured.objects)(usage)).collect::<Vec<Tree>>();
        let object = |mut tree: Tree| {
            let (namespace, name) = (tree.str_at("metadata.namespace"), tree.str_at("metadata.name"));
            let about = world.find(measured.about, namespace, name)?;
            let mut labels = Tree::map();
            for (key, value) in about.head.labels.iter() {
                labels.insert(key.to_owned(), value);
            }
            if !labels.is_empty_value() {
                tree.set("metadata.labels", labels);
            }
            Object::parse(kind.id, tree.to_json().into(), Revision::ZERO, &kind.fact_paths).ok().map(Arc::new)
        };
        let mut objects: Vec<Arc<Object>> = made.into_iter().filter_map(object).collect();
        objects.sort_by(|a, b| (&a.head.namespace, &a.head.name).cmp(&(&b.head.namespace, &b.head.name)));
        objects
    }

    /// One object of a measured kind; `None` for kinds that are stored.
    pub(super) fn get_measured(&self, request: &Request<'_>) -> Option<Result<Arc<Object>, Status>> {
        let measured = request.kind.spec?.measured?;
        let mut all = self.measured(request.kind, &measured).into_iter();
        let found = all.find(|o| o.head.namespace == *request.namespace && o.head.name == *request.name);
        Some(found.ok_or_else(|| request.not_found()))
    }

    /// The objects that a list of a kind which is not stored asks for: there are none unless it is measured.
    pub(super) fn list_computed(&self, kind: &Arc<Kind>, list: &ListRequest) -> Result<Listed, Status> {
        let filter = self.filter(kind, list)?;
        let measured = kind.spec.and_then(|row| row.measured);
        let mut items = measured.map(|measured| self.measured(kind, &measured)).unwrap_or_default();
        items.retain(|object| filter.matches(object));
        Ok(Listed { items, revision: self.cache.revision(), next: None, remaining: None })
    }
}
