//! Dashboards for Grafana, as JSON.

use serde_json::{Value, json};

/// What a panel draws.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Lines,
    Number,
    Table,
    Heatmap,
    Logs,
}

/// Where its data come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
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
    pub from: From,
    /// Expressions and what their lines are called.
    pub queries: Vec<(String, &'static str)>,
    /// From here on it is orange, from there on red.
    pub thresholds: Option<(f64, f64)>,
    pub width: u32,
    pub height: u32,
    /// Why it shows nothing when all is well, or where a part of the stack is not there.
    pub empty_when: Option<&'static str>,
}

pub struct Dashboard {
    pub uid: &'static str,
    pub title: &'static str,
    pub folder: &'static str,
    pub description: &'static str,
    pub panels: Vec<Panel>,
    /// What may be chosen besides the instance: a name, and a default.
    pub texts: &'static [(&'static str, &'static str)],
}

/// Metrics of the chosen instances.
const CHOSEN: &str = r#"job="revwallet",instance=~"$instance""#;

pub fn lines(title: &'static str, unit: &'static str, description: &'static str) -> Panel {
    Panel {
        title,
        description,
        kind: Kind::Lines,
        unit,
        from: From::Prometheus,
        queries: Vec::new(),
        thresholds: None,
        width: 12,
        height: 8,
        empty_when: None,
    }
}

pub fn number(title: &'static str, unit: &'static str, description: &'static str) -> Panel {
    Panel { kind: Kind::Number, width: 4, height: 4, ..lines(title, unit, description) }
}

impl Panel {
    /// `{}` stands for the chosen instances, `{,` for them and more labels.
    pub fn query(mut self, expression: &str, legend: &'static str) -> Self {
        let expression = expression
            .replace("{}", &format!("{{{CHOSEN}}}"))
            .replace("{,", &format!("{{{CHOSEN},"));
        self.queries.push((expression, legend));
        self
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

    pub fn from(self, from: From) -> Self {
        Self { from, ..self }
    }

    pub fn empty_when(self, why: &'static str) -> Self {
        Self { empty_when: Some(why), ..self }
    }

    fn json(&self, id: usize, place: (u32, u32)) -> Value {
        let (kind, options) = match self.kind {
            Kind::Lines => (
                "timeseries",
                json!({ "legend": { "displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"] }, "tooltip": { "mode": "multi", "sort": "desc" } }),
            ),
            Kind::Number => (
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
        let source = match self.from {
            From::Prometheus => json!({ "type": "prometheus", "uid": "${datasource}" }),
            From::Loki => json!({ "type": "loki", "uid": "loki" }),
            From::Postgres => {
                json!({ "type": "grafana-postgresql-datasource", "uid": "revwallet-db" })
            }
        };
        let steps = match self.thresholds {
            None => json!([{ "color": "green", "value": null }]),
            // A thing that is better the more there is of it.
            Some((orange, red)) if red < orange => {
                json!([{ "color": "red", "value": null }, { "color": "orange", "value": red }, { "color": "green", "value": orange }])
            }
            Some((orange, red)) => {
                json!([{ "color": "green", "value": null }, { "color": "orange", "value": orange }, { "color": "red", "value": red }])
            }
        };
        let targets = self.queries.iter().enumerate().map(|(n, (expression, legend))| {
            let letter = char::from(b'A' + u8::try_from(n).unwrap()).to_string();
            match self.from {
                From::Postgres => json!({ "refId": letter, "datasource": source, "format": "table", "rawQuery": true, "rawSql": expression }),
                From::Loki => json!({ "refId": letter, "datasource": source, "expr": expression, "legendFormat": legend, "queryType": "range" }),
                From::Prometheus => json!({
                    "refId": letter, "datasource": source, "expr": expression, "legendFormat": legend,
                    "exemplar": self.kind == Kind::Lines && expression.contains("_bucket"),
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
            "datasource": source,
            "gridPos": { "x": place.0, "y": place.1, "w": self.width, "h": self.height },
            "fieldConfig": { "defaults": { "unit": self.unit, "thresholds": { "mode": "absolute", "steps": steps }, "custom": self.custom() }, "overrides": self.overrides() },
            "options": options,
            "targets": targets.collect::<Vec<_>>(),
        })
    }

    /// From a transfer to the request behind it, and from a wallet to its transfers.
    fn overrides(&self) -> Value {
        if self.from != From::Postgres {
            return json!([]);
        }
        let links = |column: &str, links: Value| json!({ "matcher": { "id": "byName", "options": column }, "properties": [{ "id": "links", "value": links }] });
        let trace = r#"/grafana/explore?left={"datasource":"tempo","queries":[{"refId":"A","queryType":"traceql","query":"${__value.raw}"}],"range":{"from":"now-24h","to":"now"}}"#;
        let wallet = "/grafana/d/revwallet-transfers?var-wallet=${__value.raw}";
        json!([
            links(
                "trace_id",
                json!([
                    { "title": "Its logs", "url": "/grafana/d/revwallet-transfers?var-trace=${__value.raw}&${__url_time_range}" },
                    { "title": "Its trace", "url": trace },
                ])
            ),
            links(
                "transfer",
                json!([{ "title": "All its legs", "url": "/grafana/d/revwallet-transfers?var-transfer=${__value.raw}" }])
            ),
            links("from_wallet", json!([{ "title": "This wallet", "url": wallet }])),
            links("to_wallet", json!([{ "title": "This wallet", "url": wallet }])),
        ])
    }

    fn custom(&self) -> Value {
        match (self.kind, self.thresholds) {
            (Kind::Lines, Some(_)) => {
                json!({ "thresholdsStyle": { "mode": "dashed" }, "fillOpacity": 8, "showPoints": "never" })
            }
            (Kind::Lines, None) => json!({ "fillOpacity": 8, "showPoints": "never" }),
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
                "name": "Starts", "enable": true, "iconColor": "blue",
                "datasource": { "type": "prometheus", "uid": "${datasource}" },
                "expr": "changes(process_start_time_seconds{job=\"revwallet\"}[1m]) > 0",
                "titleFormat": "{{instance}} started",
            }] },
            "links": [{ "type": "dashboards", "title": "revwallet", "tags": ["revwallet"], "asDropdown": true, "includeVars": true, "keepTime": true }],
            "panels": self.placed(),
        })
    }

    fn variables(&self) -> Vec<Value> {
        let prometheus = json!({ "type": "prometheus", "uid": "${datasource}" });
        let mut variables = vec![
            json!({ "name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "current": { "text": "Prometheus", "value": "prometheus" } }),
            json!({ "name": "instance", "label": "Process", "type": "query", "datasource": prometheus, "query": { "query": "label_values(wallet_build_info{job=\"revwallet\"}, instance)", "refId": "instance" }, "multi": true, "includeAll": true, "allValue": ".+", "refresh": 2, "sort": 1, "current": { "text": "All", "value": "$__all" } }),
        ];
        for (name, default) in self.texts {
            variables.push(json!({ "name": name, "label": name, "type": "textbox", "query": default, "current": { "text": default, "value": default } }));
        }
        variables
    }

    /// From left to right, a new row where a panel does not fit.
    fn placed(&self) -> Vec<Value> {
        let (mut x, mut y, mut row_height) = (0, 0, 0);
        let mut placed = Vec::new();
        for (n, panel) in self.panels.iter().enumerate() {
            if x + panel.width > 24 {
                (x, y, row_height) = (0, y + row_height, 0);
            }
            placed.push(panel.json(n + 1, (x, y)));
            x += panel.width;
            row_height = row_height.max(panel.height);
        }
        placed
    }
}
