//! Grafana dashboards, as JSON.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::source::{alerts, promql};

/// Visualization of a panel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    TimeSeries,
    Stat,
    Table,
    Heatmap,
    Logs,
}

/// Data source of a panel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Prometheus,
    Loki,
    Postgres,
}

#[derive(Debug, Clone)]
pub struct Panel {
    pub title: &'static str,
    pub description: &'static str,
    pub kind: Kind,
    pub unit: &'static str,
    pub source: Source,
    /// Expressions and their legends.
    pub queries: Vec<(String, &'static str)>,
    /// Values from which the panel turns orange and red.
    pub thresholds: Option<(f64, f64)>,
    pub width: u32,
    pub height: u32,
    /// Reason why the panel may be empty: no errors, or a part of the stack that is not deployed.
    pub empty_when: Option<&'static str>,
    /// Title of the group of panels that this one begins.
    pub row: Option<&'static str>,
    /// The dashboard with the details, by its uid.
    pub details: Option<&'static str>,
}

pub struct Dashboard {
    pub uid: &'static str,
    pub title: &'static str,
    pub folder: &'static str,
    pub description: &'static str,
    pub panels: Vec<Panel>,
    /// Text variables besides the instance: name and default.
    pub text_variables: &'static [(&'static str, &'static str)],
}

/// Label matchers of the selected instances.
const SELECTED_INSTANCES: &str = r#"job="revwallet",instance=~"$instance""#;

pub fn time_series(title: &'static str, unit: &'static str, description: &'static str) -> Panel {
    Panel {
        title,
        description,
        kind: Kind::TimeSeries,
        unit,
        source: Source::Prometheus,
        queries: Vec::new(),
        thresholds: None,
        width: 12,
        height: 8,
        empty_when: None,
        row: None,
        details: None,
    }
}

pub fn stat(title: &'static str, unit: &'static str, description: &'static str) -> Panel {
    Panel { kind: Kind::Stat, width: 4, height: 4, ..time_series(title, unit, description) }
}

impl Panel {
    /// Adds a query; `{}` stands for the matchers of the selected instances, `{,` for these and further ones.
    pub fn query(mut self, expression: &str, legend: &'static str) -> Self {
        let expression = expression
            .replace("{}", &format!("{{{SELECTED_INSTANCES}}}"))
            .replace("{,", &format!("{{{SELECTED_INSTANCES},"));
        self.queries.push((expression, legend));
        self
    }

    /// Adds a query for minor units by currency, and shows them in whole units of their currency.
    pub fn money(self, expression: &str, legend: &'static str) -> Self {
        let scale = r#"max by (currency) (wallet_currency_minor_units{job="revwallet"})"#;
        self.query(&format!("{expression} / on (currency) group_left () {scale}"), legend)
    }

    pub fn thresholds(self, orange: f64, red: f64) -> Self {
        Self { thresholds: Some((orange, red)), ..self }
    }

    pub fn size(self, width: u32, height: u32) -> Self {
        Self { width, height, ..self }
    }

    pub fn kind(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }

    pub fn source(self, source: Source) -> Self {
        Self { source, ..self }
    }

    pub fn empty_when(self, reason: &'static str) -> Self {
        Self { empty_when: Some(reason), ..self }
    }

    /// Begins a group of panels, which people can collapse.
    pub fn begins(self, row: &'static str) -> Self {
        Self { row: Some(row), ..self }
    }

    pub fn details(self, dashboard: &'static str) -> Self {
        Self { details: Some(dashboard), ..self }
    }

    /// Metrics of all queries of Prometheus.
    pub fn metrics(&self) -> BTreeSet<String> {
        let queries = self.queries.iter().filter(|_| self.source == Source::Prometheus);
        queries.flat_map(|(query, _)| promql::metric_names(query)).collect()
    }

    /// Links to the runbooks of the alerts that watch the same metrics, and to the dashboard with the details.
    fn links(&self, dashboard: &str) -> Vec<Value> {
        let shown = self.metrics();
        let runbooks = alerts::all().filter(|alert| {
            let watched = promql::metric_names(alert.expression);
            alert.dashboard == dashboard && watched.iter().any(|metric| shown.contains(metric))
        });
        // Relative, because Grafana puts its own path before a link that begins with a slash.
        let runbook = |name: &str| json!({ "title": format!("Runbook: {name}"), "url": format!("../../../../runbooks/{name}"), "targetBlank": true });
        // Generated from the objectives, and so not among the alerts.
        let burn = shown.iter().any(|metric| metric.starts_with("slo:errors:"));
        let burn = burn.then_some("ErrorBudgetBurn").into_iter();
        let details = self.details.map(|uid| json!({ "title": "Details", "url": format!("/grafana/d/{uid}?${{__url_time_range}}") }));
        runbooks.map(|alert| alert.name).chain(burn).map(runbook).chain(details).collect()
    }

    fn json(&self, id: usize, (x, y): (u32, u32), dashboard: &str) -> Value {
        let (kind, options) = match self.kind {
            Kind::TimeSeries => (
                "timeseries",
                json!({ "legend": { "displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"] }, "tooltip": { "mode": "multi", "sort": "desc" } }),
            ),
            Kind::Stat => (
                "stat",
                json!({ "reduceOptions": { "calcs": ["lastNotNull"] }, "colorMode": if self.thresholds.is_some() { "background" } else { "value" }, "graphMode": "area" }),
            ),
            Kind::Table => ("table", json!({ "showHeader": true })),
            Kind::Heatmap => (
                "heatmap",
                json!({ "calculate": false, "yAxis": { "unit": self.unit }, "color": { "scheme": "Oranges", "mode": "scheme" } }),
            ),
            Kind::Logs => (
                "logs",
                json!({ "showTime": true, "wrapLogMessage": true, "enableLogDetails": true, "sortOrder": "Descending" }),
            ),
        };
        let source = match self.source {
            Source::Prometheus => json!({ "type": "prometheus", "uid": "${datasource}" }),
            Source::Loki => json!({ "type": "loki", "uid": "loki" }),
            Source::Postgres => {
                json!({ "type": "grafana-postgresql-datasource", "uid": "revwallet-db" })
            }
        };
        let steps = match self.thresholds {
            None => json!([{ "color": "green", "value": null }]),
            // Higher is better.
            Some((orange, red)) if red < orange => {
                json!([{ "color": "red", "value": null }, { "color": "orange", "value": red }, { "color": "green", "value": orange }])
            }
            Some((orange, red)) => {
                json!([{ "color": "green", "value": null }, { "color": "orange", "value": orange }, { "color": "red", "value": red }])
            }
        };
        let targets = self.queries.iter().enumerate().map(|(n, (expression, legend))| {
            let letter = char::from(b'A' + u8::try_from(n).unwrap()).to_string();
            match self.source {
                Source::Postgres => json!({ "refId": letter, "datasource": source, "format": "table", "rawQuery": true, "rawSql": expression }),
                Source::Loki => json!({ "refId": letter, "datasource": source, "expr": expression, "legendFormat": legend, "queryType": "range" }),
                Source::Prometheus => json!({
                    "refId": letter, "datasource": source, "expr": expression, "legendFormat": legend,
                    "exemplar": self.kind == Kind::TimeSeries && expression.contains("_bucket"),
                    "format": match self.kind { Kind::Heatmap => "heatmap", Kind::Table => "table", _ => "time_series" },
                    "instant": self.kind == Kind::Table,
                }),
            }
        });
        json!({
            "id": id,
            "type": kind,
            "title": self.title,
            "description": self.description,
            "links": self.links(dashboard),
            "datasource": source,
            "gridPos": { "x": x, "y": y, "w": self.width, "h": self.height },
            "fieldConfig": { "defaults": { "unit": self.unit, "thresholds": { "mode": "absolute", "steps": steps }, "custom": self.custom() }, "overrides": self.overrides() },
            "options": options,
            "targets": targets.collect::<Vec<_>>(),
        })
    }

    /// Links from a transfer to the logs and the trace of its request, and from a wallet to its transfers.
    fn overrides(&self) -> Value {
        if self.source != Source::Postgres {
            return json!([]);
        }
        let links = |column: &str, links: Value| json!({ "matcher": { "id": "byName", "options": column }, "properties": [{ "id": "links", "value": links }] });
        let trace = r#"/grafana/explore?left={"datasource":"tempo","queries":[{"refId":"A","queryType":"traceql","query":"${__value.raw}"}],"range":{"from":"now-24h","to":"now"}}"#;
        let wallet = "/grafana/d/revwallet-transfers?var-wallet=${__value.raw}";
        json!([
            links(
                "trace_id",
                json!([
                    { "title": "Logs", "url": "/grafana/d/revwallet-transfers?var-trace=${__value.raw}&${__url_time_range}" },
                    { "title": "Trace", "url": trace },
                ])
            ),
            links(
                "transfer",
                json!([{ "title": "All legs", "url": "/grafana/d/revwallet-transfers?var-transfer=${__value.raw}" }])
            ),
            links("from_wallet", json!([{ "title": "Transfers of this wallet", "url": wallet }])),
            links("to_wallet", json!([{ "title": "Transfers of this wallet", "url": wallet }])),
        ])
    }

    fn custom(&self) -> Value {
        match (self.kind, self.thresholds) {
            (Kind::TimeSeries, Some(_)) => {
                json!({ "thresholdsStyle": { "mode": "dashed" }, "fillOpacity": 8, "showPoints": "never" })
            }
            (Kind::TimeSeries, None) => json!({ "fillOpacity": 8, "showPoints": "never" }),
            _ => json!({}),
        }
    }
}

impl Dashboard {
    pub fn json(&self) -> Value {
        json!({
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": ["revwallet"],
            "schemaVersion": 42,
            "editable": false,
            "graphTooltip": 1,
            "refresh": "30s",
            "time": { "from": "now-1h", "to": "now" },
            "timezone": "browser",
            "templating": { "list": self.variables() },
            "annotations": { "list": [{
                "name": "Process starts", "enable": true, "iconColor": "blue",
                "datasource": { "type": "prometheus", "uid": "${datasource}" },
                "expr": "changes(process_start_time_seconds{job=\"revwallet\"}[1m]) > 0",
                "titleFormat": "{{instance}} started",
            }] },
            "links": [{ "type": "dashboards", "title": "revwallet", "tags": ["revwallet"], "asDropdown": true, "includeVars": true, "keepTime": true }],
            "panels": self.layout(),
        })
    }

    fn variables(&self) -> Vec<Value> {
        let prometheus = json!({ "type": "prometheus", "uid": "${datasource}" });
        let mut variables = vec![
            json!({ "name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "current": { "text": "Prometheus", "value": "prometheus" } }),
            json!({ "name": "instance", "label": "Process", "type": "query", "datasource": prometheus, "query": { "query": "label_values(wallet_build_info{job=\"revwallet\"}, instance)", "refId": "instance" }, "multi": true, "includeAll": true, "allValue": ".+", "refresh": 2, "sort": 1, "current": { "text": "All", "value": "$__all" } }),
        ];
        for (name, default) in self.text_variables {
            variables.push(json!({ "name": name, "label": name, "type": "textbox", "query": default, "current": { "text": default, "value": default } }));
        }
        variables
    }

    /// Panels from left to right, with a new line where one does not fit or a group begins.
    fn layout(&self) -> Vec<Value> {
        let (mut x, mut y, mut row_height) = (0, 0, 0);
        let mut panels = Vec::new();
        for (n, panel) in self.panels.iter().enumerate() {
            if x + panel.width > 24 || panel.row.is_some() {
                (x, y, row_height) = (0, y + row_height, 0);
            }
            if let Some(title) = panel.row {
                panels.push(json!({ "id": 100 + n, "type": "row", "title": title, "collapsed": false, "gridPos": { "x": 0, "y": y, "w": 24, "h": 1 }, "panels": [] }));
                y += 1;
            }
            panels.push(panel.json(n + 1, (x, y), self.uid));
            x += panel.width;
            row_height = row_height.max(panel.height);
        }
        panels
    }
}
