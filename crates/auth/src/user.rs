//! The caller of a request.

use std::collections::BTreeMap;

/// Names of groups that the server itself knows.
pub mod group {
    /// May do everything; never asked of RBAC.
    pub const MASTERS: &str = "system:masters";
    /// Everyone who has proved who they are.
    pub const AUTHENTICATED: &str = "system:authenticated";
    /// Everyone who has not.
    pub const UNAUTHENTICATED: &str = "system:unauthenticated";
    /// Node agents.
    pub const NODES: &str = "system:nodes";
    /// All service accounts.
    pub const SERVICE_ACCOUNTS: &str = "system:serviceaccounts";
}

/// Who is calling (`user.Info`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// The user name.
    pub name: String,
    /// A stable id, if the authenticator knows one.
    pub uid: String,
    /// The groups.
    pub groups: Vec<String>,
    /// What else the authenticator knows.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// An authenticated user of this name and these groups.
    pub fn new(name: &str, groups: &[&str]) -> User {
        let mut groups: Vec<String> = groups.iter().map(|g| (*g).to_owned()).collect();
        groups.push(group::AUTHENTICATED.into());
        User { name: name.into(), groups, ..User::default() }
    }

    /// The server's own hand: bootstrap and loopback.
    pub fn apiserver() -> User {
        User::new("system:apiserver", &[group::MASTERS])
    }

    /// The cluster's administrator, as the admin certificate names them.
    pub fn admin() -> User {
        User::new("system:admin", &[group::MASTERS])
    }

    /// The agent of a node.
    pub fn node(name: &str) -> User {
        User::new(&format!("system:node:{name}"), &[group::NODES])
    }

    /// The scheduler.
    pub fn scheduler() -> User {
        User::new("system:kube-scheduler", &[])
    }

    /// A controller of the controller manager, by its service account's name (`deployment-controller`).
    pub fn controller(name: &str) -> User {
        User::service_account("kube-system", name)
    }

    /// A service account.
    pub fn service_account(namespace: &str, name: &str) -> User {
        User::new(
            &format!("system:serviceaccount:{namespace}:{name}"),
            &[group::SERVICE_ACCOUNTS, &format!("{}:{namespace}", group::SERVICE_ACCOUNTS)],
        )
    }

    /// Whoever has not proved who they are.
    pub fn anonymous() -> User {
        User { name: "system:anonymous".into(), groups: vec![group::UNAUTHENTICATED.into()], ..User::default() }
    }

    /// Whether the user is in a group.
    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// The node whose agent this is.
    pub fn node_name(&self) -> Option<&str> {
        let name = self.name.strip_prefix("system:node:")?;
        (self.in_group(group::NODES) && !name.is_empty()).then_some(name)
    }

    /// Namespace and name, if this is a service account.
    pub fn as_service_account(&self) -> Option<(&str, &str)> {
        self.name.strip_prefix("system:serviceaccount:")?.split_once(':')
    }
}
