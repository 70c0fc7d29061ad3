//! Asking whether a user may do something, from within an expression.

/// A question to an authorizer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Check {
    /// Whose right it is: a service account's namespace and name, or the request's user.
    pub service_account: Option<(String, String)>,
    /// The path of a request that is about no resource.
    pub path: Option<String>,
    /// The API group.
    pub group: String,
    /// The resource.
    pub resource: String,
    /// The subresource.
    pub subresource: String,
    /// The namespace.
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// The field selector, if any.
    pub field_selector: String,
    /// The label selector, if any.
    pub label_selector: String,
    /// What is to be done.
    pub verb: String,
}

/// An answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// Whether it is allowed.
    pub allowed: bool,
    /// Why, or why not.
    pub reason: String,
    /// What went wrong when asking.
    pub error: Option<String>,
}

/// Who answers.
pub trait Authorizer: Send + Sync {
    /// Whether the check's user may do it.
    fn authorize(&self, check: &Check) -> Decision;
}

/// A value of the authorizer library.
#[derive(Clone)]
pub struct Authz<'a> {
    pub(crate) authorizer: &'a dyn Authorizer,
    pub(crate) check: Check,
    pub(crate) stage: Stage,
}

/// How far a check is put together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stage {
    Authorizer,
    Path,
    Group,
    Resource,
    Decided(Decision),
}

impl<'a> Authz<'a> {
    /// The value of the variable `authorizer`.
    pub fn new(authorizer: &'a dyn Authorizer) -> Authz<'a> {
        Authz { authorizer, check: Check::default(), stage: Stage::Authorizer }
    }

    /// The value of the variable `authorizer.requestResource`.
    pub fn of_resource(authorizer: &'a dyn Authorizer, check: Check) -> Authz<'a> {
        Authz { authorizer, check, stage: Stage::Resource }
    }

    /// The name of the type.
    pub fn type_name(&self) -> &'static str {
        match self.stage {
            Stage::Authorizer => AUTHORIZER,
            Stage::Path => "kubernetes.authorization.PathCheck",
            Stage::Group => "kubernetes.authorization.GroupCheck",
            Stage::Resource => RESOURCE_CHECK,
            Stage::Decided(_) => "kubernetes.authorization.Decision",
        }
    }
}

/// The type of the variable `authorizer`.
pub const AUTHORIZER: &str = "kubernetes.authorization.Authorizer";
/// The type of the variable `authorizer.requestResource`.
pub const RESOURCE_CHECK: &str = "kubernetes.authorization.ResourceCheck";
