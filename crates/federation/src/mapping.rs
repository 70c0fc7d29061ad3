//! From a token's claims to a user (`plugin/pkg/authenticator/token/oidc/oidc.go`, `apiserver/pkg/authentication/cel`).

use std::collections::BTreeMap;
use std::sync::LazyLock;

use corten_auth::User;
use corten_cel::{Budget, Decl, Env, PER_CALL_LIMIT, Program, Type, Value, Version};
use corten_client::config_file::Fields;
use corten_kinds::validate::names;
use corten_object::FieldError;
use corten_tree::{FieldPath, Map, Tree, tree};

/// An expression and its program.
#[derive(Debug)]
pub struct Expression {
    source: String,
    program: Program,
}

/// Where a value comes from.
#[derive(Debug, Default)]
pub enum From {
    /// Nowhere.
    #[default]
    Nothing,
    /// A claim, behind a prefix.
    Claim {
        /// Its name.
        name: String,
        /// What is put before it.
        prefix: String,
    },
    /// An expression over all claims.
    Expression(Expression),
}

/// Which claims are the user's attributes.
#[derive(Debug, Default)]
pub struct Mapping {
    /// The name.
    pub username: From,
    /// The groups.
    pub groups: From,
    /// The uid.
    pub uid: From,
    /// Extra values by their keys.
    pub extra: Vec<(String, Expression)>,
}

/// What must hold.
#[derive(Debug, Default)]
pub struct Rules {
    /// Claims with the value that they must have.
    pub required: Vec<(String, String)>,
    /// Expressions over claims, with what is said if one is false.
    pub claims: Vec<(Expression, String)>,
    /// Expressions over the user, with what is said if one is false.
    pub user: Vec<(Expression, String)>,
}

fn claims_env() -> &'static Env {
    static ENV: LazyLock<Env> =
        LazyLock::new(|| Env::new(Version::STORED).variable("claims", Type::map(Type::String, Type::Dyn)));
    &ENV
}

fn user_decl() -> &'static Decl {
    static DECL: LazyLock<Decl> = LazyLock::new(|| {
        let texts = || Decl::list(Decl::string(u64::MAX), u64::MAX);
        let fields = [
            ("username".to_owned(), Decl::string(u64::MAX)),
            ("uid".to_owned(), Decl::string(u64::MAX)),
            ("groups".to_owned(), texts()),
            ("extra".to_owned(), Decl::map(texts(), u64::MAX)),
        ];
        Decl::object("kubernetes.UserInfo", fields)
    });
    &DECL
}

fn user_env() -> &'static Env {
    static ENV: LazyLock<Env> = LazyLock::new(|| Env::new(Version::STORED).declared("user", user_decl().clone()));
    &ENV
}

impl Expression {
    fn compile(env: &Env, source: &str, path: &FieldPath, wanted: Option<Type>) -> Result<Expression, FieldError> {
        let refused = |why: String| FieldError::invalid_str(path, source, why);
        let program = env.compile(source).map_err(|issues| refused(format!("compilation failed: {issues}")))?;
        match wanted {
            Some(ty) if *program.result_type() != ty => Err(refused(format!("must evaluate to {ty}"))),
            _ => Ok(Expression { source: source.to_owned(), program }),
        }
    }

    fn over_claims<'a>(&self, claims: &'a Tree) -> Result<Value<'a>, String> {
        let vars = [("claims", Value::of_tree(claims))];
        let mut budget = Budget::new(PER_CALL_LIMIT);
        let value = self.program.eval(&vars, &mut budget);
        value.map_err(|error| format!("expression '{}' resulted in error: {error}", self.source))
    }

    fn over_user(&self, user: &Tree) -> Result<bool, String> {
        let failed = |error: corten_cel::EvalError| format!("expression '{}' resulted in error: {error}", self.source);
        let vars = [("user", Value::declared(user, user_decl()).map_err(failed)?)];
        let mut budget = Budget::new(PER_CALL_LIMIT);
        let value = self.program.eval(&vars, &mut budget).map_err(failed)?;
        value.as_bool().ok_or_else(|| "validation expression must return a boolean".into())
    }
}

/// Reads `claimValidationRules`, `claimMappings` and `userValidationRules`.
pub(crate) fn read(entry: &Fields<'_>, errors: &mut Vec<FieldError>) -> (Mapping, Rules) {
    let mut rules = Rules::default();
    let (mut claims_seen, mut expressions_seen) = (Vec::new(), Vec::new());
    for rule in entry.objects("claimValidationRules") {
        read_claim_rule(&rule, &mut rules, &mut claims_seen, &mut expressions_seen, errors);
    }
    let mapping = match entry.object("claimMappings") {
        Some(fields) => read_mapping(&fields, &rules, errors),
        None => {
            let path = entry.path().child("claimMappings").child("username");
            errors.push(FieldError::required(&path, "claim or expression is required"));
            Mapping::default()
        }
    };
    let mut seen: Vec<String> = Vec::new();
    for rule in entry.objects("userValidationRules") {
        let (source, message) = (rule.text("expression"), rule.text("message"));
        let path = rule.path().child("expression");
        if source.is_empty() {
            errors.push(FieldError::required(&path, ""));
        } else if seen.contains(&source) {
            errors.push(FieldError::duplicate(&path, &source.as_str().into()));
        } else {
            match Expression::compile(user_env(), &source, &path, Some(Type::Bool)) {
                Ok(expression) => rules.user.push((expression, message)),
                Err(error) => errors.push(error),
            }
            seen.push(source);
        }
    }
    (mapping, rules)
}

fn read_claim_rule(
    rule: &Fields<'_>,
    rules: &mut Rules,
    claims_seen: &mut Vec<String>,
    expressions_seen: &mut Vec<String>,
    errors: &mut Vec<FieldError>,
) {
    let (claim, value) = (rule.text("claim"), rule.text("requiredValue"));
    let (source, message) = (rule.text("expression"), rule.text("message"));
    let path = rule.path();
    match (claim.is_empty(), source.is_empty()) {
        (false, false) => {
            errors.push(FieldError::invalid_str(path, &claim, "claim and expression can't both be set"));
        }
        (true, true) => errors.push(FieldError::required(path, "claim or expression is required")),
        (false, true) => {
            if !message.is_empty() {
                let why = "may not be specified when claim is set";
                errors.push(FieldError::invalid_str(&path.child("message"), &message, why));
            }
            if claims_seen.contains(&claim) {
                errors.push(FieldError::duplicate(&path.child("claim"), &claim.as_str().into()));
            }
            claims_seen.push(claim.clone());
            rules.required.push((claim, value));
        }
        (true, false) => {
            if !value.is_empty() {
                let why = "may not be specified when expression is set";
                errors.push(FieldError::invalid_str(&path.child("requiredValue"), &value, why));
            }
            let path = path.child("expression");
            if expressions_seen.contains(&source) {
                errors.push(FieldError::duplicate(&path, &source.as_str().into()));
                return;
            }
            match Expression::compile(claims_env(), &source, &path, Some(Type::Bool)) {
                Ok(expression) => rules.claims.push((expression, message)),
                Err(error) => errors.push(error),
            }
            expressions_seen.push(source);
        }
    }
}

fn read_mapping(fields: &Fields<'_>, rules: &Rules, errors: &mut Vec<FieldError>) -> Mapping {
    let username = fields.object("username");
    let username_path = fields.path().child("username");
    let username = match &username {
        Some(entry) => read_prefixed(entry, true, errors),
        None => {
            errors.push(FieldError::required(&username_path, "claim or expression is required"));
            From::Nothing
        }
    };
    let groups = fields.object("groups").map(|entry| read_prefixed(&entry, false, errors)).unwrap_or_default();
    let uid = fields.object("uid").map(|entry| {
        let (claim, source) = (entry.text("claim"), entry.text("expression"));
        match (claim.is_empty(), source.is_empty()) {
            (false, false) => {
                errors.push(FieldError::invalid_str(entry.path(), "", "claim and expression can't both be set"));
                From::Nothing
            }
            (true, true) => From::Nothing,
            (false, true) => From::Claim { name: claim, prefix: String::new() },
            (true, false) => read_expression(&source, &entry.path().child("expression"), errors),
        }
    });
    let mut extra: Vec<(String, Expression)> = Vec::new();
    let mut keys: Vec<String> = Vec::new();
    for entry in fields.objects("extra") {
        let (key, source) = (entry.text("key"), entry.text("valueExpression"));
        check_extra_key(&key, &entry.path().child("key"), errors);
        let path = entry.path().child("valueExpression");
        if keys.contains(&key) {
            errors.push(FieldError::duplicate(&entry.path().child("key"), &key.as_str().into()));
        } else if source.is_empty() {
            errors.push(FieldError::required(&path, ""));
        } else if let From::Expression(expression) = read_expression(&source, &path, errors) {
            extra.push((key.clone(), expression));
        }
        keys.push(key);
    }
    if let From::Expression(name) = &username
        && name.program.selects("claims", "email")
    {
        let checks = |e: &Expression| e.program.selects("claims", "email_verified");
        let checked =
            checks(name) || extra.iter().any(|(_, e)| checks(e)) || rules.claims.iter().any(|(e, _)| checks(e));
        if !checked {
            let why = "claims.email_verified must be used in claimMappings.username.expression or \
                       claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is used in \
                       claimMappings.username.expression";
            errors.push(FieldError::invalid_str(&username_path.child("expression"), &name.source, why));
        }
    }
    Mapping { username, groups, uid: uid.unwrap_or_default(), extra }
}

fn read_expression(source: &str, path: &FieldPath, errors: &mut Vec<FieldError>) -> From {
    match Expression::compile(claims_env(), source, path, None) {
        Ok(expression) => From::Expression(expression),
        Err(error) => {
            errors.push(error);
            From::Nothing
        }
    }
}

fn read_prefixed(entry: &Fields<'_>, required: bool, errors: &mut Vec<FieldError>) -> From {
    let (claim, source, prefix) = (entry.text("claim"), entry.text("expression"), entry.optional_text("prefix"));
    let path = entry.path();
    match (claim.is_empty(), source.is_empty()) {
        (false, false) => {
            errors.push(FieldError::invalid_str(path, "", "claim and expression can't both be set"));
            From::Nothing
        }
        (true, true) => {
            if required {
                errors.push(FieldError::required(path, "claim or expression is required"));
            }
            From::Nothing
        }
        (true, false) => {
            if let Some(prefix) = prefix {
                let why = "may not be specified when expression is set";
                errors.push(FieldError::invalid_str(&path.child("prefix"), &prefix, why));
            }
            read_expression(&source, &path.child("expression"), errors)
        }
        (false, true) => {
            if prefix.is_none() {
                let why = "prefix is required when claim is set. It can be set to an empty string to disable prefixing";
                errors.push(FieldError::required(&path.child("prefix"), why));
            }
            From::Claim { name: claim, prefix: prefix.unwrap_or_default() }
        }
    }
}

fn check_extra_key(key: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let mut refuse = |why: String| errors.push(FieldError::invalid_str(path, key, why));
    match key.split_once('/') {
        _ if key.is_empty() => return errors.push(FieldError::required(path, "")),
        None | Some((_, "")) => refuse("must be a domain-prefixed path (such as \"acme.io/foo\")".into()),
        Some((domain, _)) => names::dns_subdomain(domain).into_iter().for_each(refuse),
    }
    let mut refuse = |why: &str| errors.push(FieldError::invalid_str(path, key, why));
    if key != key.to_lowercase() {
        refuse("must be lowercase");
    }
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    let below = |root: &str| domain == root || domain.strip_suffix(root).is_some_and(|rest| rest.ends_with('.'));
    if below("kubernetes.io") || below("k8s.io") {
        refuse("k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use");
    }
}

/// Go's decoder makes floating-point numbers of all numbers.
fn as_go(tree: &Tree) -> Tree {
    match tree {
        Tree::Int(n) => Tree::Float(*n as f64),
        Tree::List(items) => Tree::List(items.iter().map(as_go).collect()),
        Tree::Map(map) => Tree::Map(map.iter().map(|(key, value)| (key.to_owned().into(), as_go(value))).collect()),
        other => other.clone(),
    }
}

fn claim_text(claims: &Tree, name: &str) -> Result<String, String> {
    match claims.get(name) {
        None => Err("claim not present".into()),
        // Go leaves a string empty that is null.
        Some(Tree::Null) => Ok(String::new()),
        Some(Tree::Str(text)) => Ok(text.clone()),
        Some(other) => Err(format!("json: cannot unmarshal {} into Go value of type string", other.type_name())),
    }
}

/// A text or a list of texts; what is empty is left out.
fn texts(value: &Value<'_>) -> Result<Vec<String>, String> {
    let wrong = || "expression must return a string or a list of strings".to_owned();
    let mut found = match value {
        Value::Null => Vec::new(),
        value if value.as_str().is_some() => vec![value.as_str().unwrap_or_default().to_owned()],
        value => {
            let items = value.as_list().ok_or_else(wrong)?.items().map_err(|e| e.to_string())?;
            let items = items.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong));
            items.collect::<Result<Vec<String>, String>>()?
        }
    };
    found.retain(|text| !text.is_empty());
    Ok(found)
}

impl Mapping {
    /// The user whom verified claims mean.
    ///
    /// # Errors
    /// Upstream's words for what does not hold.
    pub fn user(&self, claims: &Tree, rules: &Rules) -> Result<User, String> {
        let go = as_go(claims);
        let mut user = User { name: self.username(claims, &go)?, ..User::default() };
        user.groups = self.groups(claims, &go)?;
        user.uid = match &self.uid {
            From::Nothing => String::new(),
            From::Claim { name, .. } => {
                claim_text(claims, name).map_err(|why| format!("oidc: parse uid claim {name:?}: {why}"))?
            }
            From::Expression(expression) => {
                let failed = |why: String| format!("oidc: error evaluating uid claim expression: {why}");
                let value = expression.over_claims(&go).map_err(failed)?;
                value.as_str().ok_or_else(|| failed("uid claim expression must return a string".into()))?.to_owned()
            }
        };
        if let Some(id) = claims.get("jti").and_then(Tree::as_str).filter(|id| !id.is_empty()) {
            user.extra.insert("authentication.kubernetes.io/credential-id".into(), vec![format!("JTI={id}")]);
        }
        for (key, expression) in &self.extra {
            let failed =
                |why: String| format!("oidc: error evaluating extra claim expression: {}: {why}", expression.source);
            let values = texts(&expression.over_claims(&go)?).map_err(failed)?;
            if !values.is_empty() {
                user.extra.insert(key.clone(), values);
            }
        }
        rules.hold(claims, &go, &user)?;
        Ok(user)
    }

    fn username(&self, claims: &Tree, go: &Tree) -> Result<String, String> {
        match &self.username {
            From::Nothing => Err("oidc: no username claim is configured".into()),
            From::Expression(expression) => {
                let failed = |why: String| format!("oidc: error evaluating username claim expression: {why}");
                let value = expression.over_claims(go).map_err(failed)?;
                match value.as_str() {
                    None => Err(failed("username claim expression must return a string".into())),
                    Some("") => Err("oidc: empty username via CEL expression is not allowed".into()),
                    Some(name) => Ok(name.to_owned()),
                }
            }
            From::Claim { name, prefix } => {
                let text = claim_text(claims, name);
                let text = text.map_err(|why| format!("oidc: parse username claims {name:?}: {why}"))?;
                match claims.get("email_verified").filter(|_| name == "email") {
                    None | Some(Tree::Bool(true)) => Ok(format!("{prefix}{text}")),
                    Some(Tree::Bool(false) | Tree::Null) => Err("oidc: email not verified".into()),
                    Some(other) => Err(format!(
                        "oidc: parse 'email_verified' claim: json: cannot unmarshal {} into Go value of type bool",
                        other.type_name()
                    )),
                }
            }
        }
    }

    fn groups(&self, claims: &Tree, go: &Tree) -> Result<Vec<String>, String> {
        match &self.groups {
            From::Nothing => Ok(Vec::new()),
            From::Expression(expression) => {
                let value = expression.over_claims(go).and_then(|value| texts(&value));
                value.map_err(|why| format!("oidc: error evaluating group claim expression: {why}"))
            }
            From::Claim { name, prefix } => {
                let wrong = |found: &Tree| {
                    let found = found.type_name();
                    format!(
                        "oidc: parse groups claim {name:?}: json: cannot unmarshal {found} into Go value of type string"
                    )
                };
                let groups = match claims.get(name) {
                    None | Some(Tree::Null) => Vec::new(),
                    Some(Tree::Str(one)) => vec![one.clone()],
                    Some(all @ Tree::List(items)) => {
                        let texts = items.iter().map(|item| item.as_str().map(str::to_owned));
                        texts.collect::<Option<Vec<String>>>().ok_or_else(|| wrong(all))?
                    }
                    Some(other) => return Err(wrong(other)),
                };
                Ok(groups.into_iter().map(|group| format!("{prefix}{group}")).collect())
            }
        }
    }
}

impl Rules {
    fn hold(&self, claims: &Tree, go: &Tree, user: &User) -> Result<(), String> {
        for (claim, wanted) in &self.required {
            if claims.get(claim).is_none() {
                return Err(format!("oidc: required claim {claim} not present in ID token"));
            }
            let found = claim_text(claims, claim).map_err(|why| format!("oidc: parse claim {claim}: {why}"))?;
            if found != *wanted {
                return Err(format!(
                    "oidc: required claim {claim} value does not match. Got = {found}, want = {wanted}"
                ));
            }
        }
        let unmet = |expression: &Expression, message: &str| {
            format!("validation expression '{}' failed: {message}", expression.source)
        };
        for (expression, message) in &self.claims {
            let failed = |why: String| format!("oidc: error evaluating claim validation expression: {why}");
            match expression.over_claims(go).map_err(failed)?.as_bool() {
                Some(true) => {}
                Some(false) => return Err(failed(unmet(expression, message))),
                None => return Err(failed("validation expression must return a boolean".into())),
            }
        }
        if self.user.is_empty() {
            return Ok(());
        }
        let shown = user_tree(user);
        for (expression, message) in &self.user {
            let failed = |why: String| format!("oidc: error evaluating user info validation rule: {why}");
            if !expression.over_user(&shown).map_err(failed)? {
                return Err(failed(unmet(expression, message)));
            }
        }
        Ok(())
    }
}

/// The user as expressions see it: all fields are there.
fn user_tree(user: &User) -> Tree {
    let extra: BTreeMap<&String, &Vec<String>> = user.extra.iter().collect();
    let extra: Map = extra.into_iter().map(|(key, values)| (key.clone().into(), values.clone().into())).collect();
    tree!({"username": (user.name.as_str()), "uid": (user.uid.as_str()), "groups": (user.groups.clone()),
        "extra": (Tree::Map(extra))})
}
