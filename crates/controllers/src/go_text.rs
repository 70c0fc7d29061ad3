//! Values as Go prints them within upstream's messages.

use corten_tree::Tree;

/// A label selector (`%v` of a `*metav1.LabelSelector`).
pub(crate) fn selector(selector: Option<&Tree>) -> String {
    let Some(selector) = selector.filter(|s| !s.is_null()) else { return "nil".into() };
    let labels = selector.map_at("matchLabels");
    let mut labels: Vec<String> =
        labels.iter().map(|(k, v)| format!("{k}: {},", v.as_str().unwrap_or_default())).collect();
    labels.sort();
    let expressions = selector.list_at("matchExpressions").iter().map(|e| {
        let values: Vec<&str> = e.list_at("values").iter().filter_map(Tree::as_str).collect();
        let (key, operator) = (e.str_at("key"), e.str_at("operator"));
        format!("LabelSelectorRequirement{{Key:{key},Operator:{operator},Values:[{}],}},", values.join(" "))
    });
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{}}},MatchExpressions:[]LabelSelectorRequirement{{{}}},}}",
        labels.concat(),
        expressions.collect::<String>()
    )
}
