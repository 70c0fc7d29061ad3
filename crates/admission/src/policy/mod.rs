//! ValidatingAdmissionPolicy and MutatingAdmissionPolicy.

use corten_object::Status;
use corten_tree::Tree;

use crate::Request;
use crate::chain::Round;

/// The policies of a server.
#[derive(Default)]
pub struct Policies;

impl Policies {
    /// Lets the mutating policies change the object; `None` for deletes.
    pub(crate) async fn mutate(
        &self,
        _request: &Request<'_>,
        _object: Option<&mut Tree>,
        _old: Option<&Tree>,
        _round: &mut Round,
    ) -> Result<(), Status> {
        Ok(())
    }

    /// Asks the validating policies.
    pub(crate) async fn validate(
        &self,
        _request: &Request<'_>,
        _object: Option<&Tree>,
        _old: Option<&Tree>,
    ) -> Result<(), Status> {
        Ok(())
    }
}
