//! `/debug/api_priority_and_fairness/dump_…`: levels, queues and requests, in upstream's columns
//! (`apiserver/pkg/util/flowcontrol/apf_controller_debug.go`).

use corten_flowcontrol::{Method, Nanos, Shown, State};

use super::{Flow, Managed, Ticket};
use crate::http::resource_of;

const BELOW: &str = "/debug/api_priority_and_fairness/";

/// The dump at a path, if it is one; `details`: with more of each request.
pub(crate) fn dump(flow: &Flow, path: &str, details: bool) -> Option<String> {
    let rows = match path.strip_prefix(BELOW)? {
        "dump_priority_levels" => levels(flow),
        "dump_queues" => queues(flow),
        "dump_requests" => requests(flow, details),
        _ => return None,
    };
    Some(table(&rows))
}

/// Rows in columns: each as wide as its widest cell and one more, at least eight (Go's `tabwriter` as upstream sets it).
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let wide = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count() + 2).max();
    let widths: Vec<usize> = (0..columns).map(|column| wide(column).unwrap_or_default().max(8)).collect();
    let mut out = String::new();
    for row in rows {
        for (at, cell) in row.iter().enumerate() {
            match at + 1 < row.len() {
                true => out.push_str(&format!("{:width$}", format!("{cell},"), width = widths[at])),
                false => out.push_str(cell),
            }
        }
        out.push('\n');
    }
    out
}

fn texts(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|cell| (*cell).to_owned()).collect()
}

fn levels(flow: &Flow) -> Vec<Vec<String>> {
    let mut rows = vec![texts(&[
        "PriorityLevelName",
        "ActiveQueues",
        "IsIdle",
        "IsQuiescing",
        "WaitingRequests",
        "ExecutingRequests",
        "DispatchedRequests",
        "RejectedRequests",
        "TimedoutRequests",
        "CancelledRequests",
    ])];
    for (name, managed) in &flow.control().levels {
        let queues = managed.level.queues();
        let totals = queues.totals();
        let mut row = vec![name.clone(), queues.queues().filter(|queue| queue.waiting > 0).count().to_string()];
        row.extend([totals.waiting == 0 && totals.executing == 0, managed.quiescing].map(|b| b.to_string()));
        let numbers = [totals.waiting, totals.executing, totals.dispatched, totals.rejected, 0, totals.cancelled];
        row.extend(numbers.map(|n| n.to_string()));
        rows.push(row);
    }
    rows
}

fn queues(flow: &Flow) -> Vec<Vec<String>> {
    let mut rows = vec![texts(&[
        "PriorityLevelName",
        "Index",
        "PendingRequests",
        "ExecutingRequests",
        "SeatsInUse",
        "NextDispatchR",
        "InitialSeatsSum",
        "MaxSeatsSum",
        "TotalWorkSum",
    ])];
    for (name, managed) in &flow.control().levels {
        // Queues that have nothing to do are not kept.
        for queue in managed.level.queues().queues() {
            let mut row = vec![name.clone()];
            row.extend([queue.number, queue.waiting, queue.running].map(|n| n.to_string()));
            row.extend([queue.seats.to_string(), format!("{:.8}ss", queue.next_r)]);
            row.extend([queue.first_seats.to_string(), queue.widths.to_string(), format!("{:.8}ss", queue.work)]);
            rows.push(row);
        }
    }
    rows
}

fn requests(flow: &Flow, details: bool) -> Vec<Vec<String>> {
    let mut head = texts(&[
        "PriorityLevelName",
        "FlowSchemaName",
        "QueueIndex",
        "RequestIndexInQueue",
        "FlowDistingsher",
        "ArriveTime",
        "InitialSeats",
        "FinalSeats",
        "AdditionalLatency",
        "StartTime",
    ]);
    if details {
        let more = ["UserName", "Verb", "APIPath", "Namespace", "Name", "APIVersion", "Resource", "SubResource"];
        head.extend(texts(&more));
    }
    let mut rows = vec![head];
    let methods: Vec<(String, Option<Method>)> = {
        let schemas = flow.schemas.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        schemas.iter().map(|schema| (schema.config.name.clone(), schema.config.method)).collect()
    };
    for managed in flow.control().levels.values() {
        for shown in managed.level.queues().requests() {
            let method = methods.iter().find(|(name, _)| name == shown.schema).and_then(|(_, method)| *method);
            rows.push(request(managed, &shown, method, details));
        }
    }
    rows
}

fn request(managed: &Managed, shown: &Shown<'_, Ticket>, method: Option<Method>, details: bool) -> Vec<String> {
    let ticket = shown.token;
    let path = ticket.uri.as_ref().map_or("", hyper::Uri::path);
    let resource = resource_of(path).unwrap_or_default();
    let number = |n: Option<usize>| n.map_or_else(|| "-1".to_owned(), |n| n.to_string());
    let at = match shown.state {
        State::Waiting(at) => Some(at),
        State::Running => None,
    };
    let told_apart = match method {
        Some(Method::User) if managed.config.response.is_some() => ticket.user.name.clone(),
        Some(Method::Namespace) if managed.config.response.is_some() => resource.namespace.clone(),
        _ => String::new(),
    };
    let began = if at.is_some() { "0001-01-01T00:00:00Z".to_owned() } else { time(shown.began) };
    let mut row =
        vec![managed.config.name.clone(), shown.schema.to_owned(), number(shown.queue), number(at), told_apart];
    row.extend([time(shown.arrived), shown.work.seats.to_string(), shown.work.last_seats.to_string()]);
    row.extend([
        corten_schema::scalars::duration::format(i64::try_from(shown.work.lingers).unwrap_or(i64::MAX)),
        began,
    ]);
    if details {
        let version = match resource.group.as_str() {
            "" => resource.version.clone(),
            group => format!("{group}/{}", resource.version),
        };
        row.extend([ticket.user.name.clone(), ticket.verb.to_owned(), path.to_owned(), resource.namespace]);
        row.extend([resource.name, version, resource.resource, resource.subresource]);
    }
    row
}

fn time(nanos: Nanos) -> String {
    corten_base::Timestamp::from_nanosecond(nanos.into()).map_or_else(|_| String::new(), |at| at.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dumps_are_in_columns() {
        let rows =
            [vec!["a".to_owned(), "bb".into(), "c".into()], vec!["longer than eight".into(), "b".into(), "c".into()]];
        assert_eq!(table(&rows), "a,                 bb,     c\nlonger than eight, b,      c\n");
    }
}
