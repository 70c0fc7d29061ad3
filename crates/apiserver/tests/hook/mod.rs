//! A webhook server: real HTTPS in this process.

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use corten_tree::{Tree, json, tree};

use crate::common::Fixture;
use crate::https::Https;

/// A webhook server: what it was asked, and how it answers.
#[allow(dead_code, reason = "each test file uses its part")]
pub struct Hook {
    pub url: String,
    pub ca_bundle: String,
    asked: Arc<Mutex<Vec<Tree>>>,
}

#[allow(dead_code, reason = "each test file uses its part")]
impl Hook {
    /// Listens on a free port; `answer` makes the response of a request (without its uid).
    pub async fn start(fixture: &Fixture, answer: impl Fn(&Tree) -> Tree + Send + Sync + 'static) -> Hook {
        let asked: Arc<Mutex<Vec<Tree>>> = Arc::default();
        let seen = asked.clone();
        let server = Https::start(fixture, move |asked| {
            let mut review = json::parse(&asked.body).unwrap();
            let question = review.remove("request").unwrap();
            seen.lock().unwrap().push(question.clone());
            let mut response = answer(&question);
            if response.path("never").is_some() {
                return None;
            }
            response.insert("uid", question.str_at("uid"));
            review.insert("response", response);
            Some((200, review.to_json_string()))
        })
        .await;
        let ca_bundle = base64::engine::general_purpose::STANDARD.encode(&server.ca_pem);
        Hook { url: format!("{}/hook", server.url), ca_bundle, asked }
    }

    pub fn asked(&self) -> Vec<Tree> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    /// A webhook of a configuration that asks this server about one resource.
    pub fn webhook(&self, name: &str, operations: Tree, resource: &str) -> Tree {
        tree!({
            "name": name,
            "clientConfig": {"url": (self.url.as_str()), "caBundle": (self.ca_bundle.as_str())},
            "rules": [{"operations": (operations), "apiGroups": ["*"], "apiVersions": ["*"], "resources": [resource]}],
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"]
        })
    }
}
