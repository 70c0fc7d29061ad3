//! Server-side apply, as far as it goes without field ownership: what is applied is merged into what is there, by the schema's
//! list types, and nobody's fields are in conflict. (Managed fields come with the API issue.)

use corten_object::Status;
use corten_schema::{FieldType, ListType, Schema, TypeId};
use corten_tree::{Map, Tree};

use super::replace::Admit;
use super::{Answer, Body, Request};
use crate::core::{Core, attributes};

impl Core {
    /// Creates the object, or merges the applied state into it.
    pub(super) async fn apply(&self, request: Request<'_>, body: Tree) -> Result<Answer, Status> {
        if request.options.field_manager.is_empty() {
            return Err(Status::bad_request(
                "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
            ));
        }
        if body.path("metadata.managedFields").is_some() {
            return Err(Status::bad_request("metadata.managedFields must be nil"));
        }
        let ty = request.kind.type_of(request.version).ok_or_else(Status::no_such_resource)?;
        let key = request.key(self.stored(request.kind));
        let mut last = request.not_found();
        for _ in 0..5 {
            self.fresh().await?;
            let Some(old) = self.cache.get(&key) else {
                if !request.subresource.is_empty() {
                    return Err(request.not_found());
                }
                let names = (request.namespace, request.name, "");
                self.authorize(&attributes(request.user, "create", request.kind, names))?;
                let decoded = self.decode(&request, Body::Tree(body.clone()))?;
                match self.create_decoded(request, decoded.tree, decoded.warnings).await {
                    Err(status) if status.is_already_exists() => {
                        last = status;
                        continue;
                    }
                    answer => return answer,
                }
            };
            // Faults of the applied state itself are reported as its own.
            let applied = self.decode(&request, Body::Tree(body.clone()))?;
            let mut tree = self.request_tree(&request, &old).await?;
            Merge(&request.kind.schema).structure(ty, &mut tree, &body);
            match self.replace_with(request, tree, Admit::Object).await {
                Err(status) if status.is_conflict() => last = status,
                Ok(answer) => return Ok(Answer { warnings: [applied.warnings, answer.warnings].concat(), ..answer }),
                Err(status) => return Err(status),
            }
        }
        Err(last)
    }
}

/// Merging by the list types of a schema.
struct Merge<'s>(&'s Schema);

impl Merge<'_> {
    fn structure(&self, ty: TypeId, into: &mut Tree, from: &Tree) {
        let Tree::Map(from) = from else { return };
        for (key, value) in from.iter() {
            let field = self.0.field(ty, key);
            let Some(field) = field else {
                into.insert(key.to_owned(), value.clone());
                continue;
            };
            let slot = into.make_map();
            if !slot.contains(key) {
                slot.insert(key.to_owned(), Tree::Null);
            }
            let slot = slot.get_mut(key).expect("it was just put there");
            if field.atomic {
                *slot = value.clone();
                continue;
            }
            match (&field.ty, field.list_type) {
                (FieldType::List(item), ListType::Map) => {
                    let keys: Vec<&str> = field.list_keys().collect();
                    self.merge_list(item.as_struct(), &keys, slot, value);
                }
                (FieldType::List(_), ListType::Set) => merge_set(slot, value),
                (other, _) => self.merge_value(other, slot, value),
            }
        }
    }

    fn merge_value(&self, ty: &FieldType, slot: &mut Tree, value: &Tree) {
        match (ty, value) {
            (FieldType::Struct(ty), Tree::Map(_)) => self.structure(*ty, slot, value),
            (FieldType::Map(item), Tree::Map(entries)) => {
                let map = slot.make_map();
                for (key, value) in entries.iter() {
                    let mut merged = map.remove(key).unwrap_or(Tree::Null);
                    self.merge_value(item, &mut merged, value);
                    map.insert(key.to_owned(), merged);
                }
            }
            _ => *slot = value.clone(),
        }
    }

    fn merge_list(&self, item: Option<TypeId>, keys: &[&str], slot: &mut Tree, value: &Tree) {
        let (Some(item), Tree::List(wanted)) = (item, value) else {
            *slot = value.clone();
            return;
        };
        if slot.as_list().is_none() {
            *slot = Tree::List(Vec::new());
        }
        let list = slot.as_list_mut().expect("it was just made a list");
        for entry in wanted {
            match list.iter_mut().find(|have| keys.iter().all(|k| key_value(have, k) == key_value(entry, k))) {
                Some(have) => self.structure(item, have, entry),
                None => {
                    let mut made = Tree::Map(Map::new());
                    self.structure(item, &mut made, entry);
                    list.push(made);
                }
            }
        }
    }
}

/// The value of a list key; `protocol` is part of the key of ports and defaults to TCP.
fn key_value(item: &Tree, key: &str) -> Tree {
    match item.get(key) {
        Some(value) => value.clone(),
        None if key == "protocol" => Tree::from("TCP"),
        None => Tree::Null,
    }
}

fn merge_set(slot: &mut Tree, value: &Tree) {
    match (slot.as_list_mut(), value) {
        (Some(list), Tree::List(wanted)) => {
            for entry in wanted {
                if !list.contains(entry) {
                    list.push(entry.clone());
                }
            }
        }
        _ => *slot = value.clone(),
    }
}
