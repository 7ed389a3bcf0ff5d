/* Follows background jobs.  No dependencies, no build step, and nothing inline, so
   that it runs under a strict Content-Security-Policy. */
(function () {
  "use strict";

  const ENDED = ["completed", "failed", "cancelled"];
  const HOPELESS = [400, 403, 404, 410];
  const TIMEOUT = 15;
  const LONGEST_WAIT = 30;
  const EVENTS = "text/event-stream";
  const LINES = "application/x-ndjson";

  function isDocument(doc) {
    return doc !== null && typeof doc === "object" && typeof doc.status === "string";
  }

  function safeTarget(url) {
    if (typeof url !== "string" || !url) return null;
    try {
      const target = new URL(url, location.href);
      // Another host only if it was spelled out: "//host" and "/\host" are not.
      const allowed = target.origin === location.origin || /^https?:\/\//i.test(url);
      return allowed && /^https?:$/.test(target.protocol) ? target.href : null;
    } catch (error) {
      return null;
    }
  }

  /* Hands over each document of a stream as it comes: of server-sent events, or one a
     line.  `memory` keeps the id of the last event, and when to come back. */
  async function listen(response, memory, hear) {
    const events = isStream(response) === EVENTS;
    const decoder = new TextDecoder();
    const reader = response.body.getReader();
    let rest = "";
    let data = "";
    for (;;) {
      const chunk = await reader.read();
      if (chunk.done) {
        if (!events && rest) throw new Error("half a line");
        return;
      }
      const lines = (rest + decoder.decode(chunk.value, {stream: true})).split(/\r?\n/);
      rest = lines.pop();
      lines.forEach(function (line) {
        if (!events) {
          if (line) hear(JSON.parse(line));
          return;
        }
        const field = /^(data|id|retry): ?(.*)$/.exec(line);
        if (field && field[1] === "data") data += field[2] + "\n";
        else if (field && field[1] === "id") memory.id = field[2];
        else if (field) memory.retry = Number(field[2]) / 1000 || 0;
        if (line || !data) return;
        const text = data;
        data = "";
        hear(JSON.parse(text));
      });
    }
  }

  function isStream(response) {
    const type = (response.headers.get("Content-Type") || "").split(";")[0].trim();
    return [EVENTS, LINES].includes(type) ? type : null;
  }

  /* A line of `session.stream()`, in the words of the status document.  What it says
     of the status is final only with the end of the stream. */
  function translated(doc) {
    return Object.assign({}, doc, {
      status: "running",
      percent: doc.overall_percent,
      tasks: Object.keys(doc.tasks || {}).map(function (id) {
        return Object.assign({id: id}, doc.tasks[id]);
      }),
    });
  }

  function call(hook, args) {
    if (typeof hook !== "function") return;
    try {
      hook.apply(null, args);
    } catch (error) {
      // A broken hook must not end the polling.
      console.error(error);
    }
  }

  /* Looks at `url` until the job has ended: at its document, its events, or the lines
     of a stream.  Options, all optional; times in seconds:
     element        where to show it, and where asyncview:update is dispatched
     interval       between two looks (5, or what events ask for)
     redirect       go to next_url at the end (true), or to this address
     redirectDelay  wait that long before (0.5)
     onUpdate(doc), onComplete(doc), onError(doc or null, HTTP status or null) */
  function follow(url, options) {
    const given = options || {};
    const element = given.element || null;
    const interval = given.interval > 0 ? Number(given.interval) : 5;
    const memory = {id: "", retry: 0};
    const redirect = given.redirect === undefined ? true : given.redirect;
    const delay = given.redirectDelay >= 0 ? Number(given.redirectDelay) : 0.5;
    const view = element ? display(element, interval) : null;
    const early = [Math.min(1, interval), Math.min(1, interval)];

    let timer = null;
    let request = null;
    let failures = 0;
    let version = -Infinity;
    let target = null;
    let stopped = false;

    function schedule(seconds) {
      clearTimeout(timer);
      timer = setTimeout(look, seconds * 1000);
    }

    function scheduleNext(retryAfter) {
      let wait;
      if (failures) {
        wait = Math.min(LONGEST_WAIT, Math.pow(2, failures - 1));
        // Jitter, so that the tabs of a site do not come back all at once.
        wait = Math.max(wait * (0.5 + Math.random() / 2), retryAfter || 0);
        wait = Math.min(LONGEST_WAIT, wait);
      } else if (early.length) {
        wait = early.shift();
      } else {
        wait = given.interval > 0 ? interval : memory.retry || interval;
      }
      if (document.hidden) wait = Math.max(wait, Math.min(wait * 4, LONGEST_WAIT));
      schedule(wait);
    }

    async function look() {
      clearTimeout(timer);
      if (request) request.abort();
      const mine = request = new AbortController();
      let limit = null;
      let last = null;
      let status = 0;
      let retryAfter = 0;
      let clock = 0;

      function wait() {
        clearTimeout(limit);
        limit = setTimeout(function () { mine.abort(); }, TIMEOUT * 1000);
      }

      function hear(doc) {
        wait();
        if (stopped || mine !== request || !isDocument(doc)) return;
        failures = 0;
        last = doc;
        if (view) view.found();
        take(doc, clock);
      }

      wait();
      try {
        const response = await fetch(url, {
          credentials: "same-origin",
          // Asks each time, with the ETag that the browser keeps.
          cache: "no-cache",
          headers: Object.assign({Accept: ["application/json", EVENTS, LINES].join(", ")},
            memory.id ? {"Last-Event-ID": memory.id} : null),
          signal: mine.signal,
        });
        status = response.status;
        retryAfter = Number(response.headers.get("Retry-After")) || 0;
        clock = Date.parse(response.headers.get("Date"));
        if (response.ok && isStream(response)) {
          await listen(response, memory, hear);
          if (last && "overall_percent" in last) finish(last);
        } else if (response.ok) {
          hear(await response.json());
        }
      } catch (error) {
        // Offline, timed out, or a login page in place of JSON: a failed look, where
        // nothing had come before.
        memory.id = "";
      }
      clearTimeout(limit);
      if (stopped || mine !== request) return;
      request = null;

      if (HOPELESS.includes(status)) {
        stop();
        release();
        if (view) view.giveUp(status);
        call(given.onError, [null, status]);
      } else if (!last) {
        failures += 1;
        if (view && failures > 1) view.lost();
        scheduleNext(status === 429 || status === 503 ? retryAfter : 0);
      } else {
        scheduleNext();
      }
    }

    function take(doc, clock) {
      if (doc.version < version) return;
      version = typeof doc.version === "number" ? doc.version : version;
      const ended = ENDED.includes(doc.status);
      if (ended) stop();
      // A progress session that is not there yet: its id was given out beforehand.
      if (doc.status === "unknown") return;
      if (view) view.update("overall_percent" in doc ? translated(doc) : doc, clock, ended);
      (element || document).dispatchEvent(
        new CustomEvent("asyncview:update", {bubbles: true, detail: doc}));
      call(given.onUpdate, [doc]);
      if (ended) end(doc, doc.status === "completed");
    }

    /* A stream of lines has ended, as all do, with the last word. */
    function finish(doc) {
      if (stopped || !["complete", "error"].includes(doc.status)) return;
      const well = doc.status === "complete";
      stop();
      if (view) {
        view.update(Object.assign(
          translated(doc), {status: well ? "completed" : "failed"}), NaN, true);
      }
      end(doc, well);
    }

    function end(doc, well) {
      if (well) call(given.onComplete, [doc]);
      else call(given.onError, [doc, null]);
      // By way of the processing page, which shows the job's messages once and then
      // leads to next_url.
      const here = doc.next_url && doc.links && doc.links.processing;
      target = redirect
        ? safeTarget(typeof redirect === "string" ? redirect : here || doc.next_url) : null;
      if (target) timer = setTimeout(leave, delay * 1000);
      else release();
    }

    function leave() {
      if (document.hidden || !target) return;
      // Replaced: "back" would come here, only to be sent on again.
      location.replace(target);
    }

    function awake() {
      if (document.hidden) return;
      if (!stopped) look();
      else leave();
    }

    function stop() {
      stopped = true;
      target = null;
      clearTimeout(timer);
      if (request) request.abort();
      if (view) view.stop();
    }

    function release() {
      document.removeEventListener("visibilitychange", awake);
      window.removeEventListener("online", awake);
      window.removeEventListener("pageshow", restored);
    }

    function restored(event) {
      if (event.persisted) awake();
    }

    document.addEventListener("visibilitychange", awake);
    window.addEventListener("online", awake);
    window.addEventListener("pageshow", restored);
    scheduleNext();
    return {
      stop: function () {
        stop();
        release();
      },
    };
  }

  /* Shows documents in an element; what the element has no place for is left out. */
  let titleTaken = false;

  function display(element, interval) {
    const texts = (find("texts") || element).dataset;
    const language = (element.closest("[lang]") || document.documentElement).lang;
    const ownsTitle = !titleTaken;
    const title = document.title.replace(/^(\((?=[^)]*%)[^)]{1,8}\)|[✓✗])\s*/, "");

    const shown = find("bar") && find("bar").hasAttribute("value") ? find("bar").value : null;

    let best = shown || 0;
    let attempt = null;
    let state = element.dataset.status || "";
    let spokenAt = Date.now();
    let spokenPercent = shown;
    let started = NaN;
    let offset = 0;
    let samples = 0;
    let speed = null;
    let sample = null;
    let first = null;
    let arrived = 0;
    let left = null;

    titleTaken = true;
    if (find("without-script")) find("without-script").hidden = true;
    const ticker = setInterval(tick, 1000);

    function find(name) {
      return element.querySelector('[data-asyncview="' + name + '"]');
    }

    function text(name, values) {
      const pattern = texts[name] || "";
      return pattern.replace(/\$\{(\w+)\}/g, function (whole, key) {
        return values && key in values ? values[key] : whole;
      });
    }

    function set(node, value) {
      // Written only if changed: live regions and selections are kept.
      if (node && node.textContent !== value) node.textContent = value;
    }

    function put(name, value) {
      set(find(name), value);
    }

    function show(node, visible) {
      if (node && node.hidden === visible) node.hidden = !visible;
    }

    function intl(format) {
      try {
        return format(language || undefined);
      } catch (error) {
        return format(undefined);
      }
    }

    function number(value, digits) {
      return intl(function (lang) {
        return new Intl.NumberFormat(
          lang, {maximumFractionDigits: digits === undefined ? 1 : digits}).format(value);
      });
    }

    function amount(value, unit) {
      return intl(function (lang) {
        return new Intl.NumberFormat(
          lang, {style: "unit", unit: unit, unitDisplay: "short"}).format(value);
      });
    }

    function plural(name, count) {
      const form = intl(function (lang) {
        return new Intl.PluralRules(lang).select(count);
      });
      const key = form === "one" ? name + "One" : name + "Other";
      return text(key, {count: number(count)});
    }

    function percentText(percent, estimated) {
      if (typeof percent !== "number") return "";
      return text(estimated ? "about" : "percent", {percent: Math.floor(percent)});
    }

    function countsText(item) {
      if (item.current === null || item.current === undefined) return "";
      // Of a hundred: the percentage says it already.
      if (item.total === 100) return "";
      const counted = typeof item.total === "number";
      return text(counted ? "counts" : "done", {
        current: number(item.current),
        total: counted ? number(item.total) : "",
      });
    }

    function setBar(bar, percent, visible) {
      if (!bar) return;
      show(bar, visible);
      if (percent === null) bar.removeAttribute("value");
      else if (bar.value !== percent || !bar.hasAttribute("value")) bar.value = percent;
    }

    function clockText(seconds) {
      const whole = Math.max(0, Math.floor(seconds));
      const hours = Math.floor(whole / 3600);
      const minutes = Math.floor(whole / 60) % 60;
      const pad = function (part) { return String(part).padStart(2, "0"); };
      const tail = pad(whole % 60);
      return hours ? hours + ":" + pad(minutes) + ":" + tail : minutes + ":" + tail;
    }

    function leftText(seconds) {
      if (seconds < 8) return text("etaSoon");
      if (seconds < 50) {
        return text("eta", {time: amount(Math.ceil(seconds / 10) * 10, "second")});
      }
      if (seconds < 3300) {
        return text("eta", {time: amount(Math.max(1, Math.round(seconds / 60)), "minute")});
      }
      return text("eta", {time: amount(Math.round(seconds / 3600), "hour")});
    }

    function tick() {
      if (isNaN(started)) return;
      const now = Date.now();
      put("elapsed", text("elapsed", {time: clockText((now + offset - started) / 1000)}));
      const age = (now - arrived) / 1000;
      const fresh = left !== null && age < 3 * interval;
      put("eta", fresh ? leftText(Math.max(0, left - age)) : "");
    }

    // Whether it counts anew: the percentage, which never goes back, says nothing then.
    function isBehind(item, percent) {
      const parts = item.tasks || [];
      if (parts.length) {
        return parts.some(function (part) {
          return part.status === "running" && isBehind(part, part.percent);
        });
      }
      return typeof percent === "number" && item.total > 0 &&
        Math.round(1000 * item.current / item.total) < Math.round(10 * percent);
    }

    function estimate(doc, percent) {
      const at = Date.parse(doc.updated) / 1000;
      if (percent === null || doc.estimated || isNaN(at) || isBehind(doc, percent)) {
        sample = first = speed = left = null;
        samples = 0;
        return;
      }
      const now = Date.now();
      if (!sample) {
        first = at;
        const stalled = (now + offset) / 1000 - at >= 3 * interval;
        if (doc.rate > 0 && doc.total > 0 && !(doc.tasks || []).length && !stalled) {
          // As good as samples since the count began.
          speed = 100 * doc.rate / doc.total;
          first = at - doc.current / doc.rate;
          samples = 2;
        }
      } else {
        // Nothing new: a stalled job must not go on promising.
        if (at <= sample.at || percent <= sample.percent) return;
        const recent = (percent - sample.percent) / (at - sample.at);
        speed = speed === null ? recent : 0.7 * speed + 0.3 * recent;
        samples += 1;
      }
      sample = {at: at, percent: percent};
      arrived = now;
      left = samples >= 2 && at - first >= 5 ? (100 - percent) / speed : null;
    }

    function fillTask(item, task) {
      const part = function (name) {
        // The item's own part comes before those of the tasks within.
        return item.querySelector('[data-task="' + name + '"]');
      };
      const running = task.status === "running";
      item.dataset.id = task.id;
      item.dataset.status = task.status;
      set(part("name"), task.name);
      set(part("state"), text("task" + task.status.charAt(0).toUpperCase() + task.status.slice(1)));
      set(part("percent"), running ? percentText(task.percent, task.estimated) : "");
      set(part("counts"), task.status === "pending" ? "" : countsText(task));
      set(part("message"), task.message || "");
      if (part("bar")) part("bar").setAttribute("aria-label", task.name);
      // Without a percentage: a bar that moves while the task runs, else an empty one.
      const known = typeof task.percent === "number" ? task.percent : null;
      setBar(part("bar"), running ? known : known || 0, true);
      fillTasks(part("tasks"), task.tasks || []);
    }

    function fillTasks(list, tasks) {
      const model = find("task");
      if (!list || !model) return;
      show(list, tasks.length > 0);
      tasks.forEach(function (task, index) {
        let item = list.children[index];
        if (!item) {
          item = document.importNode(model.content.querySelector("li"), true);
          list.append(item);
        }
        fillTask(item, task);
      });
      while (list.children.length > tasks.length) list.lastElementChild.remove();
    }

    function fillLog(lines) {
      const node = find("lines");
      if (!node) return;
      const atEnd = node.scrollTop + node.clientHeight >= node.scrollHeight - 4;
      show(find("log"), lines.length > 0);
      set(node, lines.join("\n"));
      // Follows the end, unless the reader has scrolled away from it.
      if (atEnd) node.scrollTop = node.scrollHeight;
    }

    function speak(doc, percent, changed) {
      const now = Date.now();
      const far = percent !== null &&
        (spokenPercent === null || percent - spokenPercent >= 10);
      if (!changed && !far && now - spokenAt < 10000) return;
      spokenAt = now;
      spokenPercent = percent;
      put("status", changed && state !== "running" ? text(state) : doc.progress_message || "");
    }

    function retitle(label, percent) {
      if (!ownsTitle) return;
      const sign = {completed: "✓ ", failed: "✗ ", cancelled: "✗ "}[state];
      const prefix = percent === null ? "" : "(" + percentText(percent) + ") ";
      document.title = (sign === undefined ? prefix : sign) + (title || label);
      const icon = document.querySelector("link[data-asyncview-icon]");
      const name = {queued: "iconIdle", completed: "iconCompleted", failed: "iconFailed",
        cancelled: "iconFailed"}[state] || "iconRunning";
      if (icon && texts[name] && icon.getAttribute("href") !== texts[name]) {
        icon.setAttribute("href", texts[name]);
      }
    }

    function complain(sentences) {
      const alert = find("alert");
      if (!alert || alert.textContent === sentences.join("")) return;
      alert.textContent = "";
      sentences.forEach(function (sentence) {
        const line = document.createElement("p");
        line.textContent = sentence;
        alert.append(line);
      });
    }

    return {
      update: function (doc, clock, ended) {
        const before = state;
        state = doc.cancel_requested && !ended ? "stopping" : doc.status;
        // A new attempt starts from nothing, and may say so.
        if (attempt !== null && doc.attempt > attempt) best = 0;
        attempt = doc.attempt;
        let percent = typeof doc.percent === "number" ? doc.percent : null;
        if (percent !== null) {
          best = Math.max(best, ended ? percent : Math.min(percent, 99.9));
          percent = doc.status === "completed" ? 100 : best;
        }
        const queued = doc.status === "queued";

        element.dataset.status = state;
        put("state", text(state));
        put("percent", percentText(percent, doc.estimated && !ended));
        setBar(find("bar"), percent, !(ended && percent === null));
        put("message", doc.message || "");
        put("counts", countsText(doc));
        put("rate", typeof doc.rate === "number" && doc.total !== 100 && !ended
          ? text("rate", {number: number(doc.rate, doc.rate < 10 ? 1 : 0)}) : "");
        const place = queued && typeof doc.queue_position === "number"
          ? doc.queue_position : null;
        put("queue", place === null ? ""
          : place < 1 ? text("queueNext") : plural("queue", place));
        fillTasks(find("tasks"), doc.tasks || []);
        fillLog(doc.log || []);

        if (!isNaN(clock)) offset = clock - Date.now();
        started = Date.parse(doc.started);
        if (ended && !isNaN(started)) {
          const length = (Date.parse(doc.finished) - started) / 1000;
          put("elapsed", isNaN(length) ? "" : text("elapsed", {time: clockText(length)}));
          put("eta", "");
        } else {
          estimate(doc, percent);
          tick();
        }

        const button = find("cancel");
        if (button && state === "stopping") busy(button, button.form.dataset.asyncviewBusy);
        show(find("while-running"), !ended);
        if (find("busy")) find("busy").setAttribute("aria-busy", String(!ended));
        speak(doc, percent, state !== before);
        retitle(doc.label, percent);
        if (doc.status === "failed") {
          const error = doc.error || {};
          const sentences = [error.message || text("error")];
          if (error.id) sentences.push(text("reference", {id: error.id}));
          complain(sentences);
        }
        const next = find("next");
        const address = ended ? safeTarget(doc.next_url) : null;
        if (next && address) next.href = address;
        show(next, address !== null);
      },
      lost: function () { complain([text("lost")]); },
      found: function () { complain([]); },
      giveUp: function (status) {
        complain([text(status === 404 || status === 410 ? "gone" : "refused")]);
        element.dataset.status = "lost";
        if (find("busy")) find("busy").setAttribute("aria-busy", "false");
        // What it offered and promised is no longer known to be so.
        Array.from((find("while-running") || {children: []}).children)
          .forEach(function (child) {
            show(child, child === find("without-script"));
          });
        ["state", "rate", "queue", "elapsed", "eta"].forEach(function (name) {
          put(name, "");
        });
      },
      stop: function () { clearInterval(ticker); },
    };
  }

  function busy(button, label) {
    if (!button || button.disabled) return;
    button.dataset.label = button.textContent;
    button.disabled = true;
    button.textContent = label;
  }

  document.addEventListener("submit", function (event) {
    const label = event.target.dataset.asyncviewBusy;
    // After this turn: a button that is disabled now would not be sent.
    if (label) setTimeout(function () {
      if (!event.defaultPrevented) busy(event.target.querySelector("[type=submit]"), label);
    });
  });

  window.addEventListener("pageshow", function (event) {
    if (!event.persisted) return;
    document.querySelectorAll("[data-asyncview-busy] [data-label]").forEach(function (button) {
      button.disabled = false;
      button.textContent = button.dataset.label;
    });
  });

  function followAll() {
    document.querySelectorAll("[data-asyncview-url]").forEach(function (element) {
      const data = element.dataset;
      if (ENDED.includes(data.status)) return;
      follow(data.asyncviewUrl, {
        element: element,
        interval: data.asyncviewInterval,
        redirect: data.asyncviewRedirect !== "false",
        redirectDelay: data.asyncviewRedirectDelay,
      });
    });
  }

  window.asyncview = Object.assign(window.asyncview || {}, {follow: follow});
  if (document.readyState === "loading") {
    document.addEventListener("DOMContentLoaded", followAll);
  } else {
    followAll();
  }
})();
