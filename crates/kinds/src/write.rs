//! All faults of a write, as the pipeline asks for them: metadata, the kind's own rules, what may not change.

use bytes::Bytes;
use corten_tree::Tree;

use crate::validate::{Spot, declared, meta};
use crate::{Errors, Kind, WriteContext};

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

    /// The faults of a new object, after `prepare_create`.
    pub fn create_faults(&self, object: &Tree) -> Errors {
        let mut errors = Errors::new();
        meta::validate_object_meta(self, object, &mut errors);
        for hook in [self.hooks.validate, self.hooks.validate_create].into_iter().flatten() {
            hook(object, &mut errors);
        }
        if let Some(custom) = &self.custom {
            custom.object_faults(self, object, None, &mut errors);
        }
        self.declared_faults(object, None, &mut errors);
        errors
    }

    /// Adds what upstream's types declare, of built-in kinds.
    fn declared_faults(&self, new: &Tree, old: Option<&Tree>, errors: &mut Errors) {
        if self.spec.is_some()
            && let Some(Some(ty)) = self.types.first()
        {
            declared::validate(*ty, new, old, errors);
        }
    }

    /// The faults of a changed object, after `prepare_update`.
    pub fn update_faults(&self, new: &Tree, old: &Tree) -> Errors {
        let mut errors = Errors::new();
        meta::validate_object_meta_update(self, new, old, &mut errors);
        if let Some(hook) = self.hooks.validate {
            hook(new, &mut errors);
        }
        if let Some(hook) = self.hooks.validate_update {
            hook(new, old, &mut errors);
        }
        if let Some(custom) = &self.custom {
            custom.object_faults(self, new, Some(old), &mut errors);
        }
        for path in &self.immutable {
            // The whole object is the parent, so that a missing value is compared as well.
            let (parent, field) = path.rsplit_once('.').unwrap_or(("", path));
            let root = |tree| Spot::at(tree, corten_tree::FieldPath::ROOT);
            let (new, old) = match parent {
                "" => (root(new), root(old)),
                parent => (Spot::of(new, parent), Spot::of(old, parent)),
            };
            new.immutable(&old, field, &mut errors);
        }
        self.declared_faults(new, Some(old), &mut errors);
        errors
    }

    /// The faults of a change that only its metadata's rules apply to (subresources check the rest themselves).
    pub fn metadata_faults(&self, new: &Tree, old: &Tree) -> Errors {
        let mut errors = Errors::new();
        meta::validate_object_meta_update(self, new, old, &mut errors);
        errors
    }

    /// The faults of a changed status, after everything else was put back.
    pub fn status_faults(&self, new: &Tree, old: &Tree, context: &WriteContext) -> Errors {
        let mut errors = Errors::new();
        meta::validate_object_meta_update(self, new, old, &mut errors);
        if let Some(hook) = self.hooks.validate_status {
            hook(new, old, &mut errors);
        }
        if let Some(custom) = &self.custom {
            custom.status_faults(self, new, old, &mut errors);
        }
        if let Some(hook) = self.hooks.validate_status_at {
            hook(new, old, context, &mut errors);
        }
        self.declared_faults(new, Some(old), &mut errors);
        errors
    }
}
