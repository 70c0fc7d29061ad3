//! What an expression may use: variables, types, libraries.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::check::check;
use crate::decl::Decl;
use crate::function::Functions;
use crate::issues::Issues;
use crate::parse::{Syntax, parse};
use crate::program::Program;
use crate::types::{Object, Type};

/// A version of Kubernetes, which decides on the libraries (`pkg/cel/environment/base.go`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u16, pub u16);

impl Version {
    /// What a v1.37 server offers to new expressions: all that its oldest compatible version knows
    /// (`DefaultCompatibilityVersion`; expressions stay valid after a rollback).
    pub const NEW: Version = Version(1, 36);
    /// What a v1.37 server accepts in stored expressions.
    pub const STORED: Version = Version(1, 37);
}

/// An environment. Cheap to clone and to extend.
#[derive(Clone)]
pub struct Env {
    pub(crate) version: Version,
    pub(crate) functions: Arc<Functions>,
    pub(crate) variables: Arc<BTreeMap<String, Decl>>,
    pub(crate) objects: Arc<BTreeMap<String, Arc<Object>>>,
    pub(crate) syntax: Syntax,
    pub(crate) mixed_literals: bool,
}

impl Env {
    /// Kubernetes' libraries and no variables.
    pub fn new(version: Version) -> Env {
        Env {
            version,
            functions: Functions::at(version),
            variables: Arc::default(),
            objects: Arc::default(),
            syntax: Syntax {
                optionals: version >= Version(1, 28),
                two_variables: version >= Version(1, 32),
                lists: version >= Version(1, 34),
                bindings: false,
            },
            mixed_literals: false,
        }
    }

    /// Adds `cel.bind`, which the environments of devices have.
    #[must_use]
    pub fn with_bindings(mut self) -> Env {
        self.syntax.bindings = true;
        self
    }

    /// Adds `cel.bind` and literals of mixed types, which Kubernetes' environments do not have.
    #[must_use]
    pub fn with_bindings_and_mixed_literals(self) -> Env {
        Env { mixed_literals: true, ..self.with_bindings() }
    }

    /// Adds a variable. A dotted name is one variable: `authorizer.requestResource`.
    #[must_use]
    pub fn variable(mut self, name: impl Into<String>, ty: Type) -> Env {
        Arc::make_mut(&mut self.variables).insert(name.into(), Decl::simple(ty, 0));
        self
    }

    /// Adds a variable with sizes, which cost estimates use.
    #[must_use]
    pub fn declared(mut self, name: impl Into<String>, decl: Decl) -> Env {
        Arc::make_mut(&mut self.variables).insert(name.into(), decl);
        self
    }

    /// Adds a type of messages that expressions may make: `Name{field: value}`.
    #[must_use]
    pub fn object(mut self, object: Object) -> Env {
        Arc::make_mut(&mut self.objects).insert(object.name.clone(), Arc::new(object));
        self
    }

    /// Parses, checks and plans an expression.
    pub fn compile(&self, source: &str) -> Result<Program, Issues> {
        let mut issues = Issues::new(source);
        let (expr, nodes) = parse(source, self.syntax, &mut issues);
        let Some(expr) = expr.filter(|_| issues.is_empty()) else { return Err(issues) };
        let checked = check(self, expr, nodes, &mut issues);
        if !issues.is_empty() {
            return Err(issues);
        }
        crate::validate::literals(self, &checked, &mut issues);
        if !issues.is_empty() {
            return Err(issues);
        }
        Program::new(self, checked).map_err(|why| {
            // Upstream plans after compiling and calls this a failed instantiation.
            issues.report_nowhere(why.to_string());
            issues
        })
    }

    /// Parses an expression only.
    pub fn parses(&self, source: &str) -> Result<(), Issues> {
        let mut issues = Issues::new(source);
        parse(source, self.syntax, &mut issues);
        if issues.is_empty() { Ok(()) } else { Err(issues) }
    }

    /// The type of messages of this name.
    pub(crate) fn find_object(&self, name: &str) -> Option<Type> {
        if let Some(object) = self.objects.get(name) {
            return Some(Type::Object(object.clone()));
        }
        let (root, _) = name.split_once('.')?;
        let open = self.objects.get(root).is_some_and(|object| object.open);
        open.then(|| Type::Object(Arc::new(Object { name: name.to_owned(), fields: BTreeMap::new(), open: true })))
    }

    /// What a name of a type in an expression stands for.
    pub(crate) fn find_type(&self, name: &str) -> Option<Type> {
        Type::named(name).filter(|ty| ty.available(self.version)).or_else(|| self.find_object(name))
    }
}

impl Type {
    fn available(&self, version: Version) -> bool {
        match self {
            Type::Optional(_) => version >= Version(1, 28),
            Type::Opaque(_) => version >= Version(1, 30),
            _ => true,
        }
    }
}
