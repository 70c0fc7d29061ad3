//! All faults of a write, as the pipeline asks for them: metadata, the kind's own rules, what may not change.

use bytes::Bytes;
use corten_schema::{FieldType, internal};
use corten_tree::Tree;

use crate::validate::{Spot, declared, meta};
use crate::{Errors, Kind, WriteContext, gates};

impl Kind {
    /// Fills defaults in: after decoding, for create, update and patch alike.
    pub fn fill_defaults(&self, object: &mut Tree) {
        if let Some(default) = self.hooks.default {
            default(object);
        }
        if let Some(custom) = &self.custom
            && let Some(props) = &custom.version_of(self, object).schema
        {
            props.fill(object);
        }
    }

    /// The JSON of a stored object as it is read: a custom resource at the storage version, without what its schema does not know,
    /// and with the defaults of today. What has that form already is not copied.
    pub fn as_read(&self, json: Bytes) -> Bytes {
        match &self.custom {
            Some(custom) => custom.as_read(self, json),
            None => json,
        }
    }

    /// Drops what upstream drops because its feature is off, before the object is prepared. (`strategy.PrepareForCreate`)
    pub fn drop_disabled(&self, new: &mut Tree, old: Option<&Tree>) {
        let Some(path) = self.spec.map(|row| row.pod_spec).filter(|path| !path.is_empty()) else { return };
        gates::drop_from_spec(new, old, path);
        if path == "spec" {
            gates::drop_from_status(new, old);
        }
    }

    /// The faults of a new object, after `prepare_create`. `asked` is the kind that was asked for, which has rules of its own where
    /// it is a view of this one; mostly it is this one.
    pub fn create_faults(&self, asked: &Kind, object: &Tree) -> Errors {
        let mut errors = Errors::new();
        meta::validate_object_meta(asked, object, &mut errors);
        for hook in [asked.hooks.validate, asked.hooks.validate_create].into_iter().flatten() {
            hook(object, &mut errors);
        }
        if let Some(custom) = &self.custom {
            // What is new is forgiven nothing.
            custom.object_faults(self, object, None, &mut errors);
        }
        self.show_as_upstream(object, &mut errors);
        self.declared_faults(object, None, &mut errors);
        each_once(errors)
    }

    /// Shows the values of faults that are structs as upstream does, which checks what it holds in memory: by Go's names.
    /// What its types declare, it checks in the form of the wire.
    pub fn show_as_upstream(&self, object: &Tree, errors: &mut Errors) {
        let Some(ty) = self.type_for(object).filter(|_| self.spec.is_some()) else { return };
        for error in errors.iter_mut().filter(|e| e.value.is_some()) {
            let path = error.path.to_string();
            let dotted = without_places(&path);
            let mut place = self.schema.type_at(ty, &dotted);
            if place.is_some_and(|ty| matches!(ty, FieldType::Scalar(_))) {
                // Some rules show the whole at the place of a part.
                place = dotted.rsplit_once('.').and_then(|(parent, _)| self.schema.type_at(ty, parent));
            }
            let place = place.map(|ty| if path.ends_with(']') { ty.leaf() } else { ty });
            error.reshape(|value| match place {
                Some(ty) => internal::shown(&self.schema, ty, value),
                None => value.clone(),
            });
        }
    }

    /// Adds what upstream's types declare, of built-in kinds.
    fn declared_faults(&self, new: &Tree, old: Option<&Tree>, errors: &mut Errors) {
        if self.spec.is_some()
            && let Some(Some(ty)) = self.types.first()
        {
            declared::validate(*ty, new, old, errors);
        }
    }

    /// The faults of a changed object, after `prepare_update`; `asked` as for [`Kind::create_faults`].
    /// What did not change may be wrong: `warnings` are told then.
    pub fn update_faults(&self, asked: &Kind, new: &Tree, old: &Tree, warnings: &mut Vec<String>) -> Errors {
        let mut errors = Errors::new();
        meta::validate_object_meta_update(asked, new, old, &mut errors);
        if let Some(hook) = asked.hooks.validate {
            hook(new, &mut errors);
        }
        if let Some(hook) = asked.hooks.validate_update {
            hook(new, old, &mut errors);
        }
        if let Some(custom) = &self.custom {
            warnings.extend(custom.object_faults(self, new, Some(old), &mut errors));
        }
        let freed = asked.hooks.freed.map(|freed| freed(new, old));
        let fixed = freed.as_ref().unwrap_or(old);
        for path in &self.immutable {
            // The whole object is the parent, so that a missing value is compared as well.
            let (parent, field) = path.rsplit_once('.').unwrap_or(("", path));
            let root = |tree| Spot::at(tree, corten_tree::FieldPath::ROOT);
            let (new, old) = match parent {
                "" => (root(new), root(fixed)),
                parent => (Spot::of(new, parent), Spot::of(fixed, parent)),
            };
            new.immutable(&old, field, &mut errors);
        }
        self.show_as_upstream(new, &mut errors);
        self.declared_faults(new, Some(old), &mut errors);
        each_once(errors)
    }

    /// What is dubious in a new or changed object, besides what validation tells.
    pub fn warnings(&self, new: &Tree, old: Option<&Tree>) -> Vec<String> {
        match (self.hooks.warnings, &self.custom) {
            (Some(warn), _) => warn(new, old),
            (None, Some(_)) => crate::custom::finalizer_warnings(new, old),
            (None, None) => Vec::new(),
        }
    }

    /// The faults of a change that only its metadata's rules apply to (subresources check the rest themselves).
    pub fn metadata_faults(&self, new: &Tree, old: &Tree) -> Errors {
        let mut errors = Errors::new();
        meta::validate_object_meta_update(self, new, old, &mut errors);
        errors
    }

    /// The faults of a changed status, after everything else was put back.
    pub fn status_faults(&self, new: &Tree, old: &Tree, context: &WriteContext, warnings: &mut Vec<String>) -> Errors {
        let mut errors = Errors::new();
        meta::validate_object_meta_update(self, new, old, &mut errors);
        if let Some(hook) = self.hooks.validate_status {
            hook(new, old, &mut errors);
        }
        if let Some(custom) = &self.custom {
            warnings.extend(custom.status_faults(self, new, old, &mut errors));
        }
        if let Some(hook) = self.hooks.validate_status_at {
            hook(new, old, context, &mut errors);
        }
        self.show_as_upstream(new, &mut errors);
        self.declared_faults(new, Some(old), &mut errors);
        each_once(errors)
    }
}

/// Several rules may find one fault: it is told once.
fn each_once(mut errors: Errors) -> Errors {
    let mut seen = std::collections::HashSet::new();
    errors.retain(|error| seen.insert((error.kind.as_str(), error.to_string())));
    errors
}

/// A path without the places in lists and keys of maps: `spec.containers[0].image` is `spec.containers.image`.
fn without_places(path: &str) -> String {
    let mut depth = 0_u32;
    let mut out = String::with_capacity(path.len());
    for c in path.chars() {
        match c {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            c if depth == 0 => out.push(c),
            _ => {}
        }
    }
    out
}
