//! One file per controller, each a pure reconcile; World, Plan and Action beside them.
