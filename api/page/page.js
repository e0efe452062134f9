"use strict";
// The page of the API: it reads, and changes nothing. Whatever comes from the API is put
// into the document as text. The token is kept for this tab alone.

const every = 2000; // milliseconds between two polls, as often as clients poll a status
const slow = 10000; // the same while nothing changes: a page that is left open costs a fifth
const pagesRead = 10; // of a list, for a table that counts: 500 records
const kept = "garo-token";
const answers = new Map(); // by path: the ETag, and what it stands for
let timer = 0, turn = 0, still = 0;

class Refused extends Error {
  constructor(status, problem) {
    super(problem && problem.detail || "The API answered with " + status + ".");
    this.status = status;
  }
}

// ask returns what the API answers, and whether it is new.
async function ask(path) {
  const had = answers.get(path), headers = { Authorization: "Bearer " + sessionStorage.getItem(kept) };
  if (had && had.tag) headers["If-None-Match"] = had.tag;
  const answer = await fetch(path, { headers, cache: "no-store", redirect: "error", credentials: "omit" });
  if (answer.status === 304) return { body: had.body, fresh: false };
  const body = await answer.json().catch(() => null);
  if (!answer.ok || body === null) throw new Refused(answer.status, body);
  const tag = answer.headers.get("ETag");
  if (answers.size > 50) answers.clear(); // a few views' worth
  answers.set(path, { tag, body });
  return { body, fresh: !had || JSON.stringify(had.body) !== JSON.stringify(body) };
}

// all returns the rows of a list, page by page, and whether there are more.
async function all(path, rows, most) {
  const out = { rows: [], more: false, fresh: false };
  let after = "";
  for (let n = 0; n < most; n++) {
    const got = await ask(path + (after ? "&after=" + encodeURIComponent(after) : ""));
    out.rows.push(...got.body[rows]);
    out.fresh = out.fresh || got.fresh;
    after = got.body.after;
    if (!after) return out;
  }
  out.more = true;
  return out;
}

// el makes an element. A child that is no node becomes text; nothing is read as HTML.
function el(name, attributes, ...children) {
  const ns = "http://www.w3.org/2000/svg";
  const e = ["svg", "rect", "text", "line", "title"].includes(name) ? document.createElementNS(ns, name) : document.createElement(name);
  for (const [k, v] of Object.entries(attributes || {})) e.setAttribute(k, v);
  e.append(...children.flat().filter((c) => c !== null && c !== undefined && c !== ""));
  return e;
}

const link = (href, text) => el("a", { href }, text);
const requestLink = (id) => link("#request/" + encodeURIComponent(id), id);
const runnerLink = (id) => link("#runner/" + encodeURIComponent(id), id);

// outward links to a place of another site, if it is one.
function outward(url, text) {
  return /^https:\/\//.test(url) ? el("a", { href: url, rel: "noreferrer noopener", target: "_blank" }, text) : text;
}

function consoleLink(runner) {
  if (!/^i-[a-z0-9-]+$/.test(runner.instance_id || "") || !/^[a-z0-9-]+$/.test(runner.region)) return runner.instance_id || "";
  const region = runner.region;
  const host = region.startsWith("cn-") ? "console.amazonaws.cn" : region.startsWith("us-gov-") ? "console.amazonaws-us-gov.com" : region + ".console.aws.amazon.com";
  return outward("https://" + host + "/ec2/home?region=" + region + "#InstanceDetails:instanceId=" + runner.instance_id, runner.instance_id);
}

function age(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s >= 172800) return Math.floor(s / 86400) + "d";
  if (s >= 7200) return Math.floor(s / 3600) + "h";
  if (s >= 120) return Math.floor(s / 60) + "m";
  return s + "s";
}

const since = (time) => age(Date.now() - Date.parse(time));
const left = (time) => age(Date.parse(time) - Date.now());
const when = (time) => time ? el("time", { datetime: time }, new Date(time).toLocaleString()) : "";
const place = (r) => r.instance_type ? r.market + " " + r.instance_type + " in " + r.subnet : "";
const labels = (r) => r.labels.filter((l) => !l.startsWith("garo-")).join(", ");

const tones = { ready: "good", online: "good", busy: "good", failed: "bad", expired: "bad", ok: "good", warn: "wait", skipped: "wait", accepted: "wait", waiting: "wait", draining: "wait" };
const state = (s) => el("span", { class: tones[s] || "" }, s);

// table returns rows below a caption. Each column is its name and what it shows of a row.
function table(caption, columns, rows) {
  const body = rows.map((row) => el("tr", {}, columns.map(([name, show, look]) => el("td", { "data-of": name, class: look || "" }, show(row)))));
  return el("div", { class: "scroll", role: "region", "aria-label": caption, tabindex: "0" },
    el("table", {}, el("caption", {}, caption),
      el("thead", {}, el("tr", {}, columns.map(([name]) => el("th", { scope: "col" }, name)))), el("tbody", {}, body)));
}

const empty = (...text) => el("p", { class: "empty" }, text);
const facts = (pairs) => el("dl", {}, pairs.filter(([, v]) => v !== "" && v !== undefined && v !== null).flatMap(([k, v]) => [el("dt", {}, k), el("dd", {}, v)]));
const story = (title, entries) => [el("h2", {}, title), el("ol", { class: "story" },
  entries.map((e) => el("li", {}, when(e.at), state(e.state), e.reason ? " " + e.reason : "")))];

// usd is an amount of money, and cost that of a row of usage: more than what is known, if a
// price is not.
const usd = (v) => "$" + v.toFixed(v > 0 && v < 1 ? 4 : 2);
const cost = (r) => r.usd === undefined ? "unknown" : (r.unpriced_seconds ? "more than " : "") + usd(r.usd);
const spent = (r) => r.cost && r.cost.hour_usd ? usd(r.cost.hour_usd * Math.max(0, Date.now() - Date.parse(r.launched_at)) / 36e5) : "unknown";
const hours = (seconds) => (seconds / 3600).toFixed(2);

// sums adds up rows of usage that have a name in common.
function sums(rows, nameOf) {
  const all = new Map();
  for (const r of rows) {
    const name = nameOf(r), s = all.get(name) || { row: r, runners: 0, seconds: 0, unpriced_seconds: 0 };
    for (const k of ["runners", "seconds", "unpriced_seconds"]) s[k] += r[k];
    if (r.usd !== undefined) s.usd = (s.usd || 0) + r.usd;
    all.set(name, s);
  }
  return [...all.values()];
}

const requestColumns = [
  ["Request", (r) => requestLink(r.id), "id"],
  ["State", (r) => state(r.state)],
  ["Repository", (r) => r.repository],
  ["Labels", (r) => labels(r)],
  ["Machine", (r) => r.runner ? [runnerLink(r.runner.id), " ", place(r.runner)] : ""],
  ["Age", (r) => since(r.created_at), "nowrap"],
  ["Why", (r) => r.error ? r.error.code : r.wait ? r.wait + (r.wait_until ? " for " + left(r.wait_until) : "") : r.runner && r.runner.wait || ""],
];

const views = {
  async now(_, moved) {
    const pages = moved ? 1 : 4; // what is seen first waits for one page of each, whatever there is
    const [live, queued] = await Promise.all([all("/runners?live=true", "runners", pages), all("/requests?state=accepted&since=" + day(1), "requests", pages)]); // none waits for more than a day
    const count = (...states) => live.rows.filter((r) => states.includes(r.state)).length;
    const plus = (n, list) => n + (list.more ? "+" : "");
    const tiles = [["queued", queued.rows.length, queued], ["launching", count("new", "launched"), live], ["booting", count("booting"), live],
      ["online", count("online"), live], ["busy", count("busy"), live], ["draining", count("draining", "ending"), live]];
    const oldest = queued.rows[queued.rows.length - 1];
    return { title: "Now", fresh: live.fresh || queued.fresh, soon: moved && (live.more || queued.more), content: [
      el("ul", { class: "tiles" }, tiles.map(([name, n, list]) => el("li", {}, el("b", {}, plus(n, list)), name))),
      oldest ? el("p", {}, (queued.more ? "Others have waited longer than this request, which has waited " : "The oldest request in line has waited ") + since(oldest.created_at) + " for " + oldest.repository + (oldest.wait ? ": " + oldest.wait : "") + ". ", requestLink(oldest.id)) : "",
      live.rows.length ? table("Machines that run, the newest first" + (live.more ? "; there are more: garo runners" : ""), [
        ["Runner", (r) => runnerLink(r.id), "id"],
        ["State", (r) => state(r.state)],
        ["Repository", (r) => r.repository],
        ["Labels", (r) => labels(r)],
        ["Machine", (r) => place(r)],
        ["Instance", (r) => consoleLink(r), "nowrap"],
        ["Run", (r) => r.run_url ? outward(r.run_url, r.run_id) : ""],
        ["Age", (r) => since(r.created_at), "nowrap"],
        ["Left", (r) => left(r.hard_at), "nowrap"],
        ["Cost so far", (r) => r.instance_id ? spent(r) : ""],
        ["Why", (r) => r.end ? r.end.code : r.wait || ""],
      ], live.rows) : empty("No machine runs: they are launched when a workflow or ", el("code", {}, "garo start --repo OWNER/NAME --wait"), " asks for one, and end by themselves."),
      queued.rows.length ? table("Requests in line, the newest first", requestColumns, queued.rows) : "",
    ] };
  },

  async requests() {
    const got = await all("/requests?", "requests", 1);
    return { title: "Requests", fresh: got.fresh, content: [got.rows.length ? table("The newest requests" + (got.more ? "; garo list has all" : ""), requestColumns, got.rows)
      : empty("No request yet: a workflow's first step, or ", el("code", {}, "garo start"), ", makes one.")] };
  },

  async request(id) {
    const { body: s, fresh } = await ask("/status/" + encodeURIComponent(id));
    const r = s.runner;
    return { title: "Request " + s.id, fresh, content: [
      facts([["State", state(s.state)], ["Why", s.error ? s.error.code + ": " + s.error.text : s.wait ? s.wait + (s.wait_until ? " until " + new Date(s.wait_until).toLocaleTimeString() : "") : ""],
        ["Repository", s.repository], ["Run", s.run_url ? outward(s.run_url, s.run_url) : ""], ["Asked", [when(s.created_at), " by " + s.caller]],
        ["For", s.mode + " " + s.type + " in " + s.account + " " + s.region], ["Labels", s.labels.join(", ")], ["runs-on", s.runs_on.join(", ")],
        ["Runner", r ? [runnerLink(r.id), " ", state(r.state), " ", place(r)] : ""], ["Instance", r ? consoleLink(r) : ""], ["Trace", s.trace]]),
      timeline(s.steps),
      s.attempts.length ? table("Launches that were tried", [["At", (a) => when(a.at)], ["Machine", place], ["Outcome", (a) => a.code]], s.attempts) : "",
      story("What became of the request", s.history),
      r ? story("What became of the runner", r.history) : "",
    ] };
  },

  async runner(id) {
    const { body: r, fresh } = await ask("/runners/" + encodeURIComponent(id));
    const steps = [["intended", r.created_at], ["launched", r.launched_at], ["booted", r.booted_at], ["online", r.online_at],
      ["job_begun", r.job && r.job.started_at], ["job_ended", r.job && r.job.ended_at], ["ended", r.ended_at]].filter(([, at]) => at)
      .map(([step, at]) => ({ step, at, after_s: (Date.parse(at) - Date.parse(r.created_at)) / 1000 })).sort((a, b) => a.after_s - b.after_s);
    return { title: "Runner " + r.id, fresh, content: [
      facts([["State", state(r.state)], ["Waits for", r.wait], ["Name at GitHub", r.name], ["Repository", r.repository], ["Run", r.run_url ? outward(r.run_url, r.run_url) : ""],
        ["Launched for", requestLink(r.request)], ["Machine", place(r)], ["Instance", consoleLink(r)], ["In", r.account + " " + r.region], ["Labels", r.labels.join(", ")],
        ["Last sign of life", when(r.seen_at)], ["Jobs done", String(r.jobs)], ["Cost", r.cost && r.cost.seconds ? cost(r.cost) + " for " + hours(r.cost.seconds) + " hours" : r.cost ? spent(r) + " so far" : ""], ["Ends by", r.ended_at ? "" : when(r.hard_at)], ["Ended by", r.end ? r.end.code + ": " + r.end.text : ""]]),
      timeline(steps),
      story("What became of the runner", r.history),
    ] };
  },

  async failures() {
    const got = await all("/requests?failed=true&since=" + day(7), "requests", pagesRead);
    const codes = new Map();
    for (const r of got.rows) {
      const code = r.error ? r.error.code : r.state, c = codes.get(code) || { code, day: 0, week: 0, newest: r };
      c.week++;
      if (Date.parse(r.ended_at) > Date.now() - 864e5) c.day++;
      codes.set(code, c);
    }
    const rows = [...codes.values()].sort((a, b) => b.day - a.day || b.week - a.week);
    return { title: "Failures", fresh: got.fresh, content: rows.length ? [table("Requests that ended without a runner" + (got.more ? ", of the newest 500 alone" : ""), [
      ["Code", (c) => c.code], ["In 24 h", (c) => String(c.day)], ["In 7 d", (c) => String(c.week)],
      ["What to do", (c) => c.newest.error ? c.newest.error.text : ""], ["The newest", (c) => requestLink(c.newest.id), "id"]], rows)]
      : [empty("Nothing failed in seven days.")] };
  },

  async capacity() {
    const got = await all("/requests?since=" + day(1), "requests", pagesRead);
    const places = new Map(), seen = new Set();
    const at = (a) => {
      const name = place(a);
      if (!places.has(name)) places.set(name, { name, launched: 0, none: 0, refused: 0, interrupted: 0 });
      return places.get(name);
    };
    for (const s of got.rows) {
      for (const a of s.attempts) {
        const once = a.runner + a.at + place(a);
        if (seen.has(once)) continue; // a shared runner's are in each of its requests
        seen.add(once);
        at(a)[a.code === "launched" ? "launched" : /Capacity|SpotMax|LimitExceeded/.test(a.code) ? "none" : "refused"]++;
      }
      if (s.runner && s.runner.end && s.runner.end.code === "spot_interruption" && !seen.has(s.runner.id)) {
        seen.add(s.runner.id);
        at(s.runner).interrupted++;
      }
    }
    const rows = [...places.values()].sort((a, b) => b.launched + b.none - a.launched - a.none);
    return { title: "Capacity", fresh: got.fresh, content: rows.length ? [table("Launches in 24 hours" + (got.more ? ", of the newest 500 requests alone" : ""), [
      ["Placement", (p) => p.name], ["Launched", (p) => String(p.launched)], ["No capacity", (p) => String(p.none)],
      ["Refused", (p) => String(p.refused)], ["Interrupted", (p) => String(p.interrupted)]], rows)]
      : [empty("Nothing was launched in 24 hours.")] };
  },

  async spend() {
    const { body: u, fresh } = await ask("/usage?by=day,repository,workflow");
    const spent = [["Machines", (s) => String(s.runners)], ["Hours", (s) => hours(s.seconds)],
      ["Without a price", (s) => s.unpriced_seconds ? hours(s.unpriced_seconds) : ""], ["Cost", cost, "nowrap"]];
    const dearest = (a, b) => (b.usd || 0) - (a.usd || 0) || b.seconds - a.seconds;
    return { title: "Spend", fresh, content: u.rows.length ? [
      el("p", {}, "Machines that ended from " + u.from + " to " + u.to + " cost " + cost(u.total) + " at AWS's list prices. What runs now counts when it ends."),
      table("By repository and workflow", [["Repository", (s) => s.row.repository], ["Workflow", (s) => s.row.workflow], ...spent],
        sums(u.rows, (r) => r.repository + " " + r.workflow).sort(dearest)),
      table("By day", [["Day", (s) => s.row.day, "nowrap"], ...spent], sums(u.rows, (r) => r.day).reverse()),
    ] : [empty("No machine has ended in seven days. Costs are counted when machines end: ", el("code", {}, "garo cost"), " has other days.")] };
  },
  async health() {
    const [reaper, last] = await Promise.all(["/health", "/checks/last"].map((path) => ask(path).catch((e) => {
      if (e.status === 404 || e.status === 403) return { none: e };
      throw e;
    })));
    if (reaper.none) return { title: "Health", fresh: false, content: [reaper.none.status === 403 ? empty("How the control plane is, is for operators.") : empty(reaper.none.message)] };
    return { title: "Health", fresh: reaper.fresh || !!last.fresh, content: [runs(reaper.body), el("h2", {}, "The last check"), last.none
      ? empty("Nothing was checked yet: ", el("code", {}, "garo doctor"), " has the control plane prove that it could launch a machine.") : check(last.body)] };
  },

  async find(words) {
    const { body: f, fresh } = await ask("/find?q=" + encodeURIComponent(words));
    if (f.requests.length + f.runners.length === 1) {
      location.replace(f.requests.length ? "#request/" + f.requests[0].id : "#runner/" + f.runners[0].id);
      return null;
    }
    return { title: "Found: " + words, fresh, content: [table("What this " + f.what + " names", requestColumns, f.requests)] };
  },
};

// check shows what the last check found.
function check(c) {
  const worst = ["failed", "warn", "skipped", "ok"], count = (r) => c.findings.filter((f) => f.result === r).length;
  const rows = [...c.findings].sort((a, b) => worst.indexOf(a.result) - worst.indexOf(b.result));
  return [
    el("ul", { class: "tiles" }, worst.map((r) => el("li", {}, el("b", { class: count(r) ? tones[r] || "" : "" }, String(count(r))), r))),
    el("p", {}, "Found " + since(c.ended_at) + " ago by the last check, which " + c.caller + " asked for. ", el("code", {}, "garo doctor"), " looks again."),
    table("What the last check found, the worst first", [
      ["Result", (f) => state(f.result)],
      ["Check", (f) => f.check, "nowrap"],
      ["Of", (f) => f.account_id ? f.account_id + (f.region ? " " + f.region : "") : "the control plane"],
      ["Found", (f) => (f.about ? f.about + ": " : "") + f.evidence],
      ["What to do", (f) => f.remedy || ""],
    ], rows)];
}

const silent = 180000; // milliseconds after which a run is missing: there is one every minute

// runs shows the last run of each of the reaper's shards, and what they found together.
function runs(h) {
  if (!h.runs.length) return empty("No run of the reaper is recorded yet: each run records itself when it ends, once a minute. If this stays, look whether its schedule runs, and whether its version is older than the API's.");
  const red = (bad, text) => el("span", { class: bad ? "bad" : "" }, text);
  const late = (r) => Date.now() - Date.parse(r.started_at) > silent;
  const missing = Array.from({ length: h.shards }, (_, n) => n).filter((n) => !h.runs.some((r) => r.shard === n));
  const hour = h.runs.filter((r) => r.github_left !== undefined).map((r) => r.github_left);
  const [first] = h.runs.filter((r) => r.runner_version).sort((a, b) => Date.parse(a.runner_version_ends_at) - Date.parse(b.runner_version_ends_at));
  const brakes = h.runs.flatMap((r) => r.brakes), looks = h.runs.filter((r) => r.looked_at).map((r) => r.looked_at).sort();
  const alarms = h.runs.flatMap((r) => r.alarms).sort((a, b) => Date.parse(b.at) - Date.parse(a.at));
  return [
    h.runs.filter(late).map((r) => el("p", { class: "bad" }, "The last run of the reaper" + (h.shards > 1 ? ", shard " + r.shard + "," : "") + " began " + since(r.started_at) + " ago, and there is one every minute: look at its schedule, its function and its log.")),
    missing.length ? el("p", { class: "bad" }, "No run is recorded yet of the reaper's shards: " + missing.join(", ") + ".") : "",
    facts([
      ["Oldest wait", age(1000 * Math.max(...h.runs.map((r) => r.oldest_wait_s)))],
      ["Brake", looks.length ? [brakes.length ? red(true, "on in " + brakes.join(", ")) : "off", " (seen " + since(looks[0]) + " ago)"] : "not looked at yet"],
      ["GitHub's calls left", hour.length ? red(Math.min(...hour) < 10, Math.min(...hour) + " % of the hour") : "not known"],
      ["Runner program", first ? red(Date.parse(first.runner_version_ends_at) - Date.now() < 6048e5, [first.runner_version + " is refused by GitHub in " + left(first.runner_version_ends_at)]) : looks.length ? "no version in use has a date at which GitHub refuses it" : "not looked at yet"],
    ]),
    table("The last run of the reaper", [
      ["Shard", (r) => h.shards > 1 ? r.shard + " of " + h.shards : "all"],
      ["Began", (r) => red(late(r), since(r.started_at) + " ago"), "nowrap"],
      ["Took", (r) => ((Date.parse(r.ended_at) - Date.parse(r.started_at)) / 1000).toFixed(1) + " s", "nowrap"],
      ["Late by", (r) => r.late_s.toFixed(1) + " s", "nowrap"],
      ["Failed steps", (r) => red(r.failures, String(r.failures))],
      ["Left over", (r) => Object.entries(r.left).sort().map(([phase, n]) => n + " of " + phase).join(", ") || "nothing"],
    ], h.runs),
    alarms.length ? table("Alarms that the reaper raised within a day, the newest first", [
      ["Alarm", (a) => a.code, "nowrap"],
      ["Last", (a) => since(a.at) + " ago", "nowrap"],
      ["Times", (a) => a.count + (a.count > 1 ? " in " + age(Date.parse(a.at) - Date.parse(a.since)) : "")],
      ["What it said", (a) => a.text],
    ], alarms) : el("p", {}, "The reaper raised no alarm within a day."),
    el("p", {}, "Alarms of the API and of the worker are sent as e-mails, and are not here."),
  ];
}

// day is the day that began so many days ago, so that a list asks for the same all day.
const day = (ago) => new Date(Math.floor(Date.now() / 864e5 - ago) * 864e5).toISOString().replace(".000", "");

// timeline draws when each step came. The list below it says the same in words.
function timeline(steps) {
  if (!steps.length) return "";
  const row = 20, wide = 640, mark = 170, end = Math.max(1, ...steps.map((s) => s.after_s));
  const picture = el("svg", { viewBox: "0 0 " + wide + " " + (steps.length * row + 6), role: "img", width: wide, height: steps.length * row + 6 },
    el("title", {}, "When each step came, from the first to " + age(end * 1000) + " later"));
  steps.forEach((s, n) => {
    const y = n * row, from = n ? steps[n - 1].after_s : 0, x = (v) => mark + (wide - mark - 70) * v / end;
    picture.append(el("text", { x: 0, y: y + 15 }, s.step.replace("_", " ")), el("line", { x1: mark, x2: wide - 70, y1: y + 11, y2: y + 11 }),
      el("rect", { x: x(from), y: y + 6, width: Math.max(2, x(s.after_s) - x(from)), height: 10 }), el("text", { x: wide - 64, y: y + 15 }, s.after_s.toFixed(1) + " s"));
  });
  return [el("h2", {}, "Steps"), el("div", { class: "scroll", role: "region", "aria-label": "Picture of the steps", tabindex: "0" }, picture),
    table("Each step", [["Step", (s) => s.step.replace("_", " ")], ["After", (s) => s.after_s.toFixed(1) + " s"], ["At", (s) => when(s.at)], ["Detail", (s) => s.detail || ""]], steps)];
}

// login asks for the operator's token.
function login(why) {
  const input = el("input", { id: "token", type: "password", autocomplete: "off", required: "" });
  const form = el("form", {}, el("p", {}, "Paste an operator's token. It stays in this tab until the tab is closed."),
    el("label", { for: "token" }, "Token "), input, " ", el("button", {}, "Look"));
  form.addEventListener("submit", (e) => {
    e.preventDefault();
    sessionStorage.setItem(kept, input.value.trim());
    show(true);
  });
  document.getElementById("leave").hidden = true;
  draw("Who looks?", [why ? el("p", { class: "bad" }, why) : "", form]);
  document.getElementById("token").focus();
}

// draw puts a view into the document, and leaves the focus where it is.
function draw(title, content) {
  const main = document.getElementById("main"), at = document.activeElement;
  const place = main.contains(at) && at !== main ? [...main.querySelectorAll("a,[tabindex],button,input")].indexOf(at) : -1;
  main.replaceChildren(el("h1", {}, title), ...content.flat(Infinity).filter((c) => c !== ""));
  document.title = title + " – GARO";
  const again = main.querySelectorAll("a,[tabindex],button,input")[place];
  if (place >= 0 && again) again.focus({ preventScroll: true });
}

// show draws the view that the address names, and comes back while the page is seen.
async function show(moved) {
  clearTimeout(timer);
  const mine = ++turn;
  if (location.hash.startsWith("#token=")) { // it goes out of the address at once
    sessionStorage.setItem(kept, decodeURIComponent(location.hash.slice(7)));
    history.replaceState(null, "", location.pathname + "#now");
  }
  if (!sessionStorage.getItem(kept)) return login("");
  const [name, ...words] = location.hash.slice(1).split("/");
  const view = Object.hasOwn(views, name) ? name : "now";
  document.getElementById("leave").hidden = false;
  document.querySelectorAll("nav a").forEach((a) => a.getAttribute("href") === "#" + view ? a.setAttribute("aria-current", "page") : a.removeAttribute("aria-current"));
  const news = document.getElementById("news");
  let wait = every;
  try {
    const got = await views[view](decodeURIComponent(words.join("/")), moved);
    if (mine !== turn || got === null) return;
    draw(got.title, got.content);
    news.textContent = "";
    if (moved) {
      document.getElementById("main").focus({ preventScroll: true });
      scrollTo(0, 0);
    }
    still = got.fresh ? 0 : still + 1;
    wait = got.soon ? 1 : still > 10 ? slow : every;
  } catch (e) {
    if (mine !== turn) return;
    if (e instanceof Refused && e.status === 401) {
      sessionStorage.removeItem(kept);
      return login(e.message);
    }
    if (e instanceof Refused && e.status < 500 && e.status !== 429) {
      document.body.dataset.shown = "refused";
      return draw("Nothing to show", [empty(e.message)]);
    }
    news.textContent = e instanceof Refused ? e.message : "No answer from the API. Trying again.";
    wait = ++still > 10 ? slow : every;
  }
  document.body.dataset.shown = view; // for tests: this view has been drawn
  if (!document.hidden) timer = setTimeout(show, wait);
}

document.getElementById("search").addEventListener("submit", (e) => {
  e.preventDefault();
  const words = document.getElementById("q").value.trim();
  if (words) location.hash = "#find/" + encodeURIComponent(words);
});
document.getElementById("leave").addEventListener("click", () => {
  sessionStorage.removeItem(kept);
  answers.clear();
  show(true);
});
document.querySelector(".skip").addEventListener("click", (e) => {
  e.preventDefault();
  document.getElementById("main").focus();
});
addEventListener("hashchange", () => show(true));
addEventListener("visibilitychange", () => document.hidden ? clearTimeout(timer) : show(false));

show(true);
