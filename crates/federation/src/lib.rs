//! Who is calling and may they, by others' word.
//!
//! [`Identities`] knows bearer tokens that are none of this cluster's own: those of OIDC issuers ([`config`]), and those that
//! another server knows ([`TokenReviewOptions`]). [`Authorizer`]s say in which order who decides; one of them may be another
//! server, too. The files that name them are read anew when they change. Upstream: `apiserver/plugin/pkg/{authenticator,authorizer}`,
//! `apiserver/pkg/apis/apiserver`.

mod access_review;
mod authorizers;
pub mod config;
mod identities;
pub mod jwt;
mod kept;
mod mapping;
mod measured;
mod oidc;
mod reload;
mod token_review;

pub use access_review::{AccessReviewOptions, AccessReviewer};
pub use authorizers::{AuthorizationOptions, Authorizer, Authorizers};
pub use config::{AnonymousConfig, AuthenticationConfig};
pub use identities::{AuthenticationOptions, Environment, Identities, OidcFlags};
pub use measured::metrics_text;
pub use token_review::TokenReviewOptions;
