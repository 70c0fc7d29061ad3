//! Definitions of custom resources in a test: the controller that gives them their names, and waiting for their kinds.

use std::sync::Arc;

use corten_base::{SystemClock, SystemEntropy};
use corten_controllers::custom_resource_definition::CustomResourceDefinitionController;
use corten_manager::Manager;
use corten_tree::{Tree, tree};

use super::Fixture;
use super::caller::Caller;

pub const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// A served and stored (or only served) version of a definition, with a schema of its objects.
pub fn version(name: &str, storage: bool, schema: Tree) -> Tree {
    tree!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": schema}})
}

impl Fixture {
    /// Starts the controller that accepts definitions' names; without it no kind is ever served.
    pub fn start_definitions(&self) {
        let api = self.admin();
        let manager = Manager {
            cache: self.cache.clone(),
            api: Arc::new(move |_: &str| api.clone()),
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy),
        };
        manager.start_controller(&self.tasks, Box::new(CustomResourceDefinitionController));
    }

    /// Makes a definition and waits until its kind is served.
    pub async fn define(&self, caller: &mut Caller, definition: &Tree) {
        let (code, made) = caller.post(DEFINITIONS, definition).await;
        assert_eq!(code, 201, "{made}");
        let (plural, group) = made.str_at("metadata.name").split_once('.').unwrap();
        self.until_cache(|fixture| fixture.cache.registry().group_resource(group, plural).is_some()).await;
    }
}
