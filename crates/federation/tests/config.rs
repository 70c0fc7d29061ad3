//! Faults of configuration files, in upstream's words.

#![allow(clippy::unwrap_used, reason = "a test")]

use corten_client::config_file::yaml;
use corten_federation::AuthenticationConfig;

const OWN: &str = "https://kubernetes.default.svc.cluster.local";

fn fault(text: &str) -> String {
    AuthenticationConfig::parse(&yaml(text).unwrap(), OWN).unwrap_err()
}

/// An issuer with this and nothing wrong besides.
fn issuer(more: &str) -> String {
    fault(&format!("jwt: [{{issuer: {{{more}}}, claimMappings: {{username: {{claim: sub, prefix: ''}}}}}}]"))
}

fn mapping(more: &str) -> String {
    fault(&format!("jwt: [{{issuer: {{url: 'https://i', audiences: [a]}}, {more}}}]"))
}

#[test]
fn authentication_configuration_faults_of_issuers_are_upstreams() {
    for (text, expected) in [
        ("audiences: [a]", "jwt[0].issuer.url: Required value"),
        ("url: 'http://i', audiences: [a]", "jwt[0].issuer.url: Invalid value: \"http://i\": URL scheme must be https"),
        (
            "url: 'https://u:p@i', audiences: [a]",
            "jwt[0].issuer.url: Invalid value: \"https://u:p@i\": URL must not contain a username or password",
        ),
        (
            "url: 'https://i?q=1', audiences: [a]",
            "jwt[0].issuer.url: Invalid value: \"https://i?q=1\": URL must not contain a query",
        ),
        (
            "url: 'https://kubernetes.default.svc.cluster.local', audiences: [a]",
            "jwt[0].issuer.url: Invalid value: \"https://kubernetes.default.svc.cluster.local\": URL must not overlap with disallowed issuers: [https://kubernetes.default.svc.cluster.local]",
        ),
        (
            "url: 'https://i', discoveryURL: 'https://i/', audiences: [a]",
            "jwt[0].issuer.discoveryURL: Invalid value: \"https://i/\": discoveryURL must be different from URL",
        ),
        (
            "url: 'https://i'",
            "jwt[0].issuer.audiences: Required value: at least one jwt[0].issuer.audiences is required",
        ),
        (
            "url: 'https://i', audiences: [a, b]",
            "jwt[0].issuer.audienceMatchPolicy: Invalid value: \"\": audienceMatchPolicy must be MatchAny for multiple audiences",
        ),
        (
            "url: 'https://i', audiences: [a, a], audienceMatchPolicy: MatchAny",
            "jwt[0].issuer.audiences[1]: Duplicate value: \"a\"",
        ),
        (
            "url: 'https://i', audiences: [a], certificateAuthority: x",
            "jwt[0].issuer.certificateAuthority: Invalid value: \"<omitted>\": data does not contain any valid RSA or ECDSA certificates",
        ),
        ("url: 'https://i', audiences: [a], urll: x", "strict decoding error: unknown field \"jwt[0].issuer.urll\""),
    ] {
        assert_eq!(issuer(text), expected, "{text}");
    }
    let anonymous = "anonymous: {enabled: false, conditions: [{path: /a}]}";
    assert!(fault(anonymous).ends_with("enabled should be set to true when conditions are defined"));
}

#[test]
fn authentication_configuration_faults_of_mappings_are_upstreams() {
    for (text, expected) in [
        ("claimMappings: {}", "jwt[0].claimMappings.username: Required value: claim or expression is required"),
        (
            "claimMappings: {username: {claim: sub}}",
            "jwt[0].claimMappings.username.prefix: Required value: prefix is required when claim is set. It can be set to an empty string to disable prefixing",
        ),
        (
            "claimMappings: {username: {expression: claims.sub, prefix: a}}",
            "jwt[0].claimMappings.username.prefix: Invalid value: \"a\": may not be specified when expression is set",
        ),
        (
            "claimMappings: {username: {expression: claims.email}}",
            "jwt[0].claimMappings.username.expression: Invalid value: \"claims.email\": claims.email_verified must be used in claimMappings.username.expression or claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is used in claimMappings.username.expression",
        ),
        (
            "claimMappings: {username: {expression: claims.sub}, extra: [{key: foo, valueExpression: claims.a}]}",
            "jwt[0].claimMappings.extra[0].key: Invalid value: \"foo\": must be a domain-prefixed path (such as \"acme.io/foo\")",
        ),
        (
            "claimMappings: {username: {expression: claims.sub}, extra: [{key: x.k8s.io/foo, valueExpression: claims.a}]}",
            "jwt[0].claimMappings.extra[0].key: Invalid value: \"x.k8s.io/foo\": k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use",
        ),
        (
            "claimMappings: {username: {expression: claims.sub}}, claimValidationRules: [{expression: claims.sub}]",
            "jwt[0].claimValidationRules[0].expression: Invalid value: \"claims.sub\": must evaluate to bool",
        ),
        (
            "claimMappings: {username: {expression: claims.sub}}, claimValidationRules: [{claim: a, expression: b}]",
            "jwt[0].claimValidationRules[0]: Invalid value: \"a\": claim and expression can't both be set",
        ),
        (
            "claimMappings: {username: {expression: claims.sub}}, userValidationRules: [{message: a}]",
            "jwt[0].userValidationRules[0].expression: Required value",
        ),
    ] {
        assert_eq!(mapping(text), expected, "{text}");
    }
    assert!(mapping("claimMappings: {username: {expression: 'claims.'}}").contains("compilation failed: ERROR"));
    let good = "jwt: [{issuer: {url: 'https://i', audiences: [a]}, claimMappings: {username: {expression: 'claims.?email_verified.orValue(true) ? claims.email : claims.sub'}}}]";
    assert!(AuthenticationConfig::parse(&yaml(good).unwrap(), OWN).is_ok());
}
