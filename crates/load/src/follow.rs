//! Watching until something has come about.

use std::collections::HashSet;

use anyhow::{Result, anyhow, bail};
use corten_client::HttpClient;
use corten_client::kubeconfig::Connection;
use corten_tree::Tree;
use futures::StreamExt as _;

use crate::State;

/// Watches a collection, from its present state on, until so many objects are as they are to be.
///
/// # Errors
/// If the watch ends before.
pub(crate) async fn until(connection: &Connection, path: &str, count: usize, state: State) -> Result<()> {
    let client = HttpClient::new(connection)?;
    let path = format!("{path}?watch=true");
    let mut events = client.lines(&path, "application/json").await.map_err(|s| anyhow!("{path}: {s}"))?;
    let mut there = HashSet::new();
    while let Some(event) = events.next().await {
        let event = event.map_err(|s| anyhow!("{path}: {s}"))?;
        let Some(object) = event.path("object").filter(|object| state.is_of(object)) else { continue };
        there.insert(object.str_at("metadata.uid").to_owned());
        if there.len() >= count {
            return Ok(());
        }
    }
    bail!("the watch of {path} ended")
}

impl State {
    fn is_of(self, object: &Tree) -> bool {
        match self {
            State::Rolled { generation, replicas } => {
                let number = |field: &str| object.i64_at(&format!("status.{field}")).unwrap_or(0);
                let counts = ["replicas", "updatedReplicas", "availableReplicas"];
                number("observedGeneration") >= generation && counts.iter().all(|field| number(field) == replicas)
            }
            State::Complete => {
                let complete = |c: &Tree| c.str_at("type") == "Complete" && c.str_at("status") == "True";
                object.list_at("status.conditions").iter().any(complete)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corten_tree::tree;

    #[test]
    fn what_is_awaited_is_told_by_the_status() {
        let rolled = State::Rolled { generation: 2, replicas: 3 };
        let status = |observed: i64, updated: i64| tree!({"status": {"observedGeneration": observed, "replicas": 3, "updatedReplicas": updated, "availableReplicas": 3}});
        assert!(rolled.is_of(&status(2, 3)));
        assert!(!rolled.is_of(&status(1, 3)), "it has not been looked at yet");
        assert!(!rolled.is_of(&status(2, 1)));
        let job = |kind: &str| tree!({"status": {"conditions": [{"type": kind, "status": "True"}]}});
        assert!(State::Complete.is_of(&job("Complete")));
        assert!(!State::Complete.is_of(&job("SuccessCriteriaMet")));
    }
}
