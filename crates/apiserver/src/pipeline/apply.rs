//! Server-side apply.

use corten_object::Status;
use corten_tree::Tree;

use super::create::Fields;
use super::replace::{Admit, Change};
use super::{Answer, Body, Request, yaml};
use crate::core::{Core, attributes};

/// How often an apply is tried when others write at the same time.
const ATTEMPTS: usize = 5;

/// A configuration to apply.
#[derive(Clone)]
pub(super) struct Applied {
    pub body: Tree,
    /// What is said of its repeated fields once it has been merged. (`applyPatchToCurrentObject` in `handlers/patch.go`)
    pub refusal: Option<Status>,
}

impl Core {
    /// Creates the object, or merges the applied configuration into it.
    pub(super) async fn apply(&self, request: Request<'_>, body: Tree, strict: Vec<String>) -> Result<Answer, Status> {
        let mut refusal = None;
        let warnings = match request.options.field_validation.as_str() {
            // What is wrong with applying it is told before.
            "Strict" if !strict.is_empty() => {
                let why = format!("error strict decoding patch: {}", strict.join(", "));
                refusal = Some(Status::bad_request(why));
                Vec::new()
            }
            "Ignore" => Vec::new(),
            _ => strict.iter().flat_map(|text| yaml::warnings(text)).collect(),
        };
        let applied = Applied { body, refusal };
        let key = request.key(self.stored(request.kind));
        let mut last = request.not_found();
        for _ in 0..ATTEMPTS {
            self.fresh().await?;
            if self.cache.get(&key).is_none() {
                match self.apply_new(request, &applied, warnings.clone()).await {
                    Err(status) if status.is_already_exists() => last = status,
                    answer => return answer,
                }
                continue;
            }
            let change = Change::Apply(applied.clone());
            match self.replace(request, change, warnings.clone(), Admit::Object).await {
                // It went meanwhile.
                Err(status) if status.reason == corten_object::Reason::NotFound => last = status,
                answer => return answer,
            }
        }
        Err(last)
    }

    async fn apply_new(
        &self,
        request: Request<'_>,
        Applied { body, refusal }: &Applied,
        warnings: Vec<String>,
    ) -> Result<Answer, Status> {
        if !request.subresource.is_empty() {
            return Err(request.not_found());
        }
        let tree = self.applied(&request, None, body, self.clock.now())?;
        refusal.clone().map_or(Ok(()), Err)?;
        let uid = body.str_at("metadata.uid");
        if !uid.is_empty() {
            let why =
                format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
            return Err(Status::conflict(&request.kind.group, &request.kind.plural, request.name, why));
        }
        self.authorize(&attributes(request.user, "create", request.kind, (request.namespace, request.name, "")))
            .await?;
        let mut tree = self.decode(&request, Body::Tree(tree))?.tree;
        tree.remove("metadata.resourceVersion");
        self.create_decoded(request, tree, warnings, Fields::Tracked).await
    }
}
