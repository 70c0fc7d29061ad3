//! Object, head, selectors, quantities, patches and Status errors.
