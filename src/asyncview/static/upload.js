/* Uploads the files of <input type="file" data-asyncview-upload="/uploads"> in chunks, by
   tus 1.0, while the form is filled in; the form then carries their ids and not their
   bytes.  No dependencies, no build step, and nothing inline, so that it runs under a
   strict Content-Security-Policy.  Where it can't work it leaves the input alone. */
(function () {
  "use strict";

  const MIB = 1024 * 1024;
  const CHUNK = 8 * MIB;
  const SMALLEST_CHUNK = MIB / 4;
  const LONGEST_WAIT = 30;
  const MOST_REFUSALS = 8;
  // Seconds without a byte, or an answer, after which a connection counts as dead.
  const STALLED = 60;
  // As the server does where it is not told otherwise.
  const KEPT_FOR = 24 * 3600 * 1000;
  const KEPT_UNDER = "asyncview-upload ";
  const PASSING = [408, 409, 423, 425, 429, 460];
  const MOVING = ["waiting", "sending", "lost"];
  const UNDONE = MOVING.concat("paused", "failed");

  // Of the page, and so in its language; see upload.pt.
  const texts = document.currentScript ? document.currentScript.dataset : {};

  let fields = [];
  const attended = new WeakSet();
  // Forms that are sent when their uploads are complete, and with which button.
  const intents = new Map();
  const starting = new WeakSet();

  // Uploads that may be taken up again, also after the page was left.
  const memory = {
    read: function (key) {
      try {
        return JSON.parse(localStorage.getItem(key));
      } catch (error) {
        return null;
      }
    },
    write: function (key, value) {
      try {
        localStorage.setItem(key, JSON.stringify(value));
      } catch (error) {
        // Full or forbidden: then it ends with the page.
      }
    },
    forget: function (key) {
      try {
        localStorage.removeItem(key);
      } catch (error) {
        // As above.
      }
    },
    under: function (path) {
      try {
        return Object.keys(localStorage).filter(function (key) {
          return key.startsWith(KEPT_UNDER + path + " ");
        });
      } catch (error) {
        return [];
      }
    },
  };

  // An answer's status is 0 where there was none.
  function send(method, url, headers, body, told) {
    const xhr = new XMLHttpRequest();
    let timer = null;
    const answer = new Promise(function (resolve) {
      function alive() {
        clearTimeout(timer);
        timer = setTimeout(function () { xhr.abort(); }, STALLED * 1000);
      }
      xhr.open(method, url);
      Object.keys(headers).forEach(function (name) {
        xhr.setRequestHeader(name, headers[name]);
      });
      xhr.upload.onprogress = function (event) {
        alive();
        if (told) told(event.loaded);
      };
      xhr.onloadend = function () {
        clearTimeout(timer);
        resolve({
          status: xhr.status,
          header: function (name) { return xhr.getResponseHeader(name); },
        });
      };
      alive();
      xhr.send(body);
    });
    return {answer: answer, abort: function () { xhr.abort(); }};
  }

  function base64(text) {
    return btoa(String.fromCharCode.apply(null, new TextEncoder().encode(text)));
  }

  function randomToken() {
    return Array.from(crypto.getRandomValues(new Uint32Array(4)), String).join("-");
  }

  function fingerprint(file, path) {
    return KEPT_UNDER + [path, file.name, file.type, file.size, file.lastModified].join(" ");
  }

  /* Brings one file to the server, and calls `told` whenever something has changed.

     Its state: waiting; sending; lost (no connection, tries again); paused; done (`uid` is
     the upload's id); failed (`problem` says why); plain (goes with the form as it is);
     cancelled. */
  function transfer(file, path, csrf, told) {
    const key = fingerprint(file, path);
    const it = {
      file: file,
      key: key,
      state: "waiting",
      problem: null,
      uid: null,
      sent: 0,
      // Of these, what was there before, and says nothing of the speed.
      found: 0,
      start: start,
      pause: pause,
      resume: function () { become("waiting"); },
      cancel: cancel,
      hurry: function () { wake(); },
    };
    let run = 0;
    let token = null;
    let url = null;
    let offset = 0;
    // Only the server knows: after an error, and at the first look at an old upload.
    let unsure = false;
    let chunk = CHUNK;
    let failures = 0;
    let restarts = 0;
    let request = null;
    let wake = function () {};

    function become(state, problem) {
      it.state = state;
      it.problem = problem || null;
      told(it);
    }

    function reach(bytes) {
      // What is sent a second time is no news.
      if (bytes <= it.sent) return;
      it.sent = bytes;
      told(it);
    }

    function call(method, target, headers, body, progress) {
      const all = Object.assign({"Tus-Resumable": "1.0.0"}, csrf(), headers);
      request = send(method, target, all, body, progress);
      return request.answer;
    }

    function place(answer) {
      const value = Number(answer.header("Upload-Offset"));
      return answer.header("Upload-Offset") !== null && value >= 0 && value <= file.size
        ? value : null;
    }

    function keep() {
      memory.write(key, {
        url: url, name: file.name, size: file.size, sent: offset, at: Date.now(),
      });
    }

    async function create() {
      // If the answer is lost the same upload is answered once more.
      token = token || randomToken();
      const answer = await call("POST", path, {
        "Idempotency-Key": token,
        "Upload-Length": String(file.size),
        "Upload-Metadata": "filename " + base64(file.name) +
          (file.type ? ",filetype " + base64(file.type) : ""),
      });
      const location = answer.header("Location");
      if (answer.status !== 201 || !location) return answer;
      const target = new URL(location, new URL(path, document.baseURI));
      if (target.origin !== window.location.origin) return {status: 501};
      url = target.pathname + target.search;
      token = null;
      offset = it.sent = it.found = 0;
      unsure = false;
      keep();
      return null;
    }

    async function ask() {
      const answer = await call("HEAD", url);
      if (answer.status < 200 || answer.status > 299) return answer;
      const length = answer.header("Upload-Length");
      const found = place(answer);
      // Another file of the same name, size and time, or no upload at all.
      if (found === null || (length !== null && Number(length) !== file.size)) {
        return {status: 404};
      }
      offset = found;
      unsure = false;
      it.found += Math.max(0, offset - it.sent);
      reach(offset);
      return null;
    }

    async function append() {
      const from = offset;
      const answer = await call(
        "PATCH", url,
        {"Upload-Offset": String(from), "Content-Type": "application/offset+octet-stream"},
        file.slice(from, from + chunk),
        function (loaded) { reach(Math.min(from + loaded, file.size)); });
      const found = place(answer);
      if (answer.status < 200 || answer.status > 299) return answer;
      // It must move, or this would have no end.
      if (found === null || found <= from) return {status: 500};
      offset = found;
      failures = restarts = 0;
      reach(offset);
      keep();
      return null;
    }

    function step() {
      if (url === null) return create();
      return unsure ? ask() : append();
    }

    async function start() {
      const mine = run += 1;
      const kept = memory.read(key);
      if (url === null && kept && typeof kept.url === "string") url = kept.url;
      unsure = url !== null;
      failures = restarts = 0;
      become("sending");
      while (url === null || unsure || offset < file.size) {
        const creating = url === null;
        const trouble = await step();
        if (mine !== run) {
          // It was made after all, and nobody waits for it.
          if (it.state === "cancelled" && creating && !trouble) drop();
          return;
        }
        if (!trouble) {
          if (it.state !== "sending") become("sending");
        } else if (!(await mend(trouble, creating, mine))) {
          return;
        }
      }
      it.uid = decodeURIComponent(url.split("?")[0].replace(/\/$/, "").split("/").pop());
      it.sent = file.size;
      become("done");
    }

    // True if there is something to try again.
    async function mend(trouble, creating, mine) {
      const status = trouble.status;
      if (status === 413 && !creating && chunk > SMALLEST_CHUNK) {
        // A proxy takes less at once than the server would.
        chunk = Math.max(SMALLEST_CHUNK, chunk / 4);
        unsure = true;
        return true;
      }
      if ((status === 404 || status === 410) && !creating && restarts < 2) {
        restarts += 1;
        memory.forget(key);
        url = null;
        offset = it.sent = it.found = 0;
        return true;
      }
      const passing = status === 0 || PASSING.includes(status) ||
        (status >= 500 && status !== 501 && status !== 507);
      if (!passing) {
        const missing = creating && [404, 405, 501].includes(status);
        become(missing ? "plain" : "failed", {
          400: "refused", 401: "refused", 403: "refused", 413: "large", 507: "full",
        }[status] || "failed");
        return false;
      }
      failures += 1;
      unsure = url !== null;
      if (!(await readable())) {
        if (mine === run) become("failed", "unreadable");
        return false;
      }
      if (mine !== run) return false;
      // A network comes back; what is answered again and again is an answer.
      if (status !== 0 && failures > MOST_REFUSALS) {
        become("failed", "failed");
        return false;
      }
      if (status === 0 || failures > 1) become("lost");
      const hint = trouble.header ? Number(trouble.header("Retry-After")) || 0 : 0;
      // Jitter, so that a server that starts again is not run over by all at once.
      const pause = Math.pow(2, failures - 1) * (0.5 + Math.random() / 2);
      await rest(Math.min(LONGEST_WAIT, Math.max(pause, hint)));
      return mine === run;
    }

    async function readable() {
      try {
        await file.slice(0, 1).arrayBuffer();
        return true;
      } catch (error) {
        return false;
      }
    }

    function rest(seconds) {
      return new Promise(function (resolve) {
        wake = resolve;
        setTimeout(resolve, seconds * 1000);
      });
    }

    function halt() {
      run += 1;
      // An upload that is being made can't be told to go before it has a name.
      if (request && url !== null) request.abort();
      wake();
    }

    function pause() {
      halt();
      become("paused");
    }

    function drop() {
      if (url === null) return;
      discard(url, csrf());
      memory.forget(key);
      url = null;
    }

    function cancel() {
      it.state = "cancelled";
      halt();
      drop();
      told(it);
    }

    return it;
  }

  function discard(url, headers) {
    fetch(url, {
      method: "DELETE",
      credentials: "same-origin",
      keepalive: true,
      headers: Object.assign({"Tus-Resumable": "1.0.0"}, headers),
    }).catch(function () {
      // It expires.
    });
  }

  // Words

  function wording(node) {
    const language = (node.closest("[lang]") || document.documentElement).lang;

    function text(name, values) {
      return (texts[name] || "").replace(/\$\{(\w+)\}/g, function (whole, key) {
        return values && key in values ? values[key] : whole;
      });
    }

    function amount(value, unit, digits) {
      const options = {
        style: "unit", unit: unit, unitDisplay: "short", maximumFractionDigits: digits || 0,
      };
      try {
        return new Intl.NumberFormat(language || undefined, options).format(value);
      } catch (error) {
        return new Intl.NumberFormat(undefined, options).format(value);
      }
    }

    function bytes(value) {
      const units = ["byte", "kilobyte", "megabyte", "gigabyte", "terabyte"];
      let index = 0;
      while (value >= 999.5 && index < units.length - 1) {
        value /= 1000;
        index += 1;
      }
      return amount(value, units[index], index > 1 && value < 99.95 ? 1 : 0);
    }

    function left(seconds) {
      if (seconds < 8) return text("etaSoon");
      const time = seconds < 50 ? amount(Math.ceil(seconds / 10) * 10, "second")
        : seconds < 3300 ? amount(Math.max(1, Math.round(seconds / 60)), "minute")
          : amount(Math.round(seconds / 3600), "hour");
      return text("eta", {time: time});
    }

    return {text: text, bytes: bytes, left: left};
  }

  // The page

  let made = 0;

  function newId() {
    made += 1;
    return "av-upload-" + made;
  }

  function add(parent, tag, name, content) {
    const node = document.createElement(tag);
    node.className = name;
    if (content) node.textContent = content;
    parent.append(node);
    return node;
  }

  function button(parent, label, pressed) {
    const node = add(parent, "button", "av-button av-quiet", label);
    node.type = "button";
    node.addEventListener("click", pressed);
    return node;
  }

  function set(node, value) {
    // Written only if changed: live regions and selections are kept.
    if (node.textContent !== value) node.textContent = value;
  }

  function percentOf(it) {
    if (it.state === "done") return 100;
    return it.file.size ? Math.min(99.9, 100 * it.sent / it.file.size) : 0;
  }

  /* One file on the page: its name, its bar, what is known, and two buttons. */
  function row(list, words, actions) {
    const item = add(list, "li", "av-upload-file");
    const line = add(item, "div", "av-upload-line");
    const name = add(line, "span", "av-upload-name", actions.name);
    const percent = add(line, "span", "av-upload-percent");
    const bar = add(item, "progress", "av-bar av-bar-small");
    const note = add(item, "p", "av-upload-note");
    const buttons = add(item, "div", "av-upload-actions");
    const toggle = button(buttons, "", actions.toggle);
    const remove = button(buttons, "", actions.remove);
    let seen = null;
    let speed = null;

    name.dir = "auto";
    name.id = newId();
    bar.max = 100;
    bar.setAttribute("aria-labelledby", name.id);
    toggle.setAttribute("aria-describedby", name.id);
    remove.setAttribute("aria-describedby", name.id);

    function measure(it) {
      const now = performance.now();
      const sent = it.sent - it.found;
      if (it.state !== "sending") {
        seen = speed = null;
      } else if (seen === null) {
        seen = {at: now, since: now, sent: sent};
      } else if (now - seen.at >= 900) {
        const recent = 1000 * (sent - seen.sent) / (now - seen.at);
        speed = speed === null ? recent : 0.7 * speed + 0.3 * recent;
        seen = {at: now, since: seen.since, sent: sent};
      }
    }

    function facts(it) {
      const size = it.file.size;
      const known = [words.text(it.state)];
      known.push(it.sent > 0 && it.state !== "done"
        ? words.text("counts", {current: words.bytes(it.sent), total: words.bytes(size)})
        : words.bytes(size));
      if (speed > 0) {
        known.push(words.text("rate", {number: words.bytes(speed)}));
        // Earlier it would be a guess.
        if (seen.at - seen.since >= 4000) known.push(words.left((size - it.sent) / speed));
      }
      return known.join(" · ");
    }

    return {
      item: item,
      update: function (it) {
        const offered = {
          waiting: "pause", sending: "pause", lost: "pause", paused: "resume", failed: "again",
        }[it.state];
        measure(it);
        item.dataset.state = it.state;
        set(percent, offered && it.state !== "failed"
          ? words.text("percent", {percent: Math.floor(percentOf(it))}) : "");
        bar.value = percentOf(it);
        bar.hidden = it.state === "plain";
        set(note, it.state === "failed" ? words.text(it.problem) : facts(it));
        toggle.hidden = !offered;
        set(toggle, words.text(offered));
        set(remove, words.text(offered ? "cancel" : "remove"));
      },
    };
  }

  /* One input: keeps a transfer for each file that is chosen in it. */
  function enhance(input) {
    if (!able(input)) return;
    const endpoint = new URL(input.dataset.asyncviewUpload, document.baseURI);
    const path = endpoint.pathname + endpoint.search;
    const form = input.form;
    const words = wording(input);
    const rows = new Map();
    let transfers = [];
    let spokenAt = 0;

    const box = document.createElement("div");
    const label = input.closest("label");
    (label || input).after(box);
    box.className = "av-upload";
    // Buttons in a label would be pressed for its sake.
    if (!label) box.append(input);
    const hint = add(box, "p", "av-upload-hint", words.text(input.multiple ? "dropMany" : "drop"));
    const list = add(box, "ul", "av-upload-files");
    const notice = add(box, "p", "av-upload-notice", words.text("later"));
    const status = add(box, "p", "av-hidden");
    const alert = add(box, "p", "av-hidden");
    hint.id = newId();
    list.setAttribute("aria-label", words.text("files"));
    status.setAttribute("role", "status");
    alert.setAttribute("role", "alert");
    input.setAttribute(
      "aria-describedby", ((input.getAttribute("aria-describedby") || "") + " " + hint.id).trim());

    function csrf() {
      const token = form.elements.namedItem(texts.csrfField || "csrf_token");
      return token && token.value ? {[texts.csrfHeader || "X-CSRF-Token"]: token.value} : {};
    }

    function told(it) {
      if (!rows.has(it)) return;
      const changed = rows.get(it).item.dataset.state !== it.state;
      rows.get(it).update(it);
      speak(it, changed);
      input.dispatchEvent(new CustomEvent("asyncview:upload", {
        bubbles: true,
        detail: {
          file: it.file, state: it.state, sent: it.sent, total: it.file.size, uid: it.uid,
        },
      }));
      if (!changed) return;
      proceed();
      settle(form);
    }

    function speak(it, changed) {
      if (it.state === "failed") {
        set(alert, it.file.name + ": " + words.text(it.problem));
      } else if (changed || Date.now() - spokenAt >= 10000) {
        spokenAt = Date.now();
        set(alert, "");
        set(status, it.file.name + ": " + (changed ? words.text(it.state)
          : words.text("percent", {percent: Math.floor(percentOf(it))})));
      }
    }

    // What is chosen in the input is what counts, whoever has changed it.
    function sync() {
      const before = transfers;
      transfers = Array.from(input.files, function (file) {
        const key = fingerprint(file, path);
        return before.find(function (it) { return it.key === key; }) ||
          transfer(file, path, csrf, told);
      });
      before.forEach(function (it) {
        if (transfers.includes(it)) return;
        rows.get(it).item.remove();
        rows.delete(it);
        it.cancel();
      });
      transfers.forEach(function (it) {
        if (rows.has(it)) return;
        rows.set(it, row(list, words, {
          name: it.file.name,
          toggle: function () { MOVING.includes(it.state) ? it.pause() : it.resume(); },
          remove: function () { remove(it); },
        }));
        rows.get(it).update(it);
      });
      set(alert, "");
      offer();
      proceed();
      settle(form);
    }

    function choose(files) {
      const chosen = new DataTransfer();
      files.forEach(function (file) { chosen.items.add(file); });
      input.files = chosen.files;
      input.dispatchEvent(new Event("change", {bubbles: true}));
    }

    function remove(it) {
      intents.delete(form);
      choose(Array.from(input.files).filter(function (file) {
        return fingerprint(file, path) !== it.key;
      }));
      // The button that had the focus is gone.
      input.focus();
    }

    // What an earlier visit left unfinished.
    function offer() {
      list.querySelectorAll("[data-state=kept]").forEach(function (item) { item.remove(); });
      if (!transfers.length) memory.under(path).forEach(offerOne);
      list.hidden = !list.children.length;
    }

    function offerOne(key) {
      const kept = memory.read(key);
      if (!kept || !(Date.now() - kept.at < KEPT_FOR)) {
        memory.forget(key);
        return;
      }
      // Nothing is there, or all of it, and then it may be a job's already.
      if (!kept.sent || kept.sent >= kept.size) return;
      const item = add(list, "li", "av-upload-file");
      const percent = words.text("percent", {percent: Math.floor(100 * kept.sent / kept.size)});
      const note = add(item, "p", "av-upload-note",
        words.text("kept", {name: kept.name, percent: percent}));
      item.dataset.state = "kept";
      note.id = newId();
      button(add(item, "div", "av-upload-actions"), words.text("discard"), function () {
        discard(kept.url, csrf());
        memory.forget(key);
        offer();
        input.focus();
      }).setAttribute("aria-describedby", note.id);
    }

    fields.push({
      input: input,
      form: form,
      box: box,
      transfers: function () { return transfers; },
      drop: function (files) {
        choose(input.multiple ? Array.from(input.files).concat(files) : files.slice(0, 1));
      },
      show: function () { notice.hidden = !intents.has(form); },
      complain: function (problem) { set(alert, words.text(problem)); },
      tick: function () {
        transfers.forEach(function (it) {
          if (it.state === "sending") rows.get(it).update(it);
        });
      },
    });
    notice.hidden = true;
    attend(form);
    input.addEventListener("change", sync);
    form.addEventListener("reset", function () { setTimeout(sync); });
    // Chosen before: by somebody quick, or by the browser, which comes back to a page.
    sync();
  }

  function able(input) {
    return input.type === "file" && input.name && input.form && input.form.method === "post" &&
      "FormDataEvent" in window && "DataTransfer" in window && "requestSubmit" in input.form &&
      new URL(input.dataset.asyncviewUpload, document.baseURI).origin === location.origin &&
      !fields.some(function (field) { return field.input === input; });
  }

  function fieldsOf(form) {
    return fields.filter(function (field) { return field.form === form; });
  }

  function transfersIn(states, form) {
    return (form ? fieldsOf(form) : fields).flatMap(function (field) {
      return field.transfers();
    }).filter(function (it) {
      return states.includes(it.state);
    });
  }

  // One at a time: more would share the same line, and the first be done later.
  function proceed() {
    const next = transfersIn(["waiting"])[0];
    if (next && !transfersIn(["sending", "lost"]).length) next.start();
  }

  // Forms

  function attend(form) {
    if (attended.has(form)) return;
    attended.add(form);
    form.addEventListener("submit", function (event) {
      if (event.defaultPrevented) return;
      const open = transfersIn(UNDONE, form);
      if (open.length) {
        event.preventDefault();
        intents.set(form, event.submitter);
        open.forEach(function (it) { if (!MOVING.includes(it.state)) it.resume(); });
        settle(form);
      } else if ("asyncviewFollow" in form.dataset) {
        event.preventDefault();
        startHere(form, event.submitter);
      }
    });
    form.addEventListener("formdata", function (event) {
      const own = fieldsOf(form).filter(function (field) { return field.transfers().length; });
      own.forEach(function (field) { event.formData.delete(field.input.name); });
      own.forEach(function (field) {
        field.transfers().forEach(function (it) {
          event.formData.append(field.input.name, it.state === "done" ? it.uid : it.file);
        });
      });
    });
  }

  // Sends a form that has waited for its uploads; if one failed, its user decides anew.
  function settle(form) {
    if (!intents.has(form)) return;
    const button = intents.get(form);
    const failed = transfersIn(["failed"], form).length > 0;
    const ready = !transfersIn(UNDONE, form).length;
    if (failed || ready) intents.delete(form);
    fieldsOf(form).forEach(function (field) { field.show(); });
    if (ready) form.requestSubmit(button);
  }

  /* Starts the job of a form with data-asyncview-follow, and shows its progress on the same
     page.  The attribute is a selector of what gives way to the same part of the job's page;
     where it is empty the form gives way to the job's progress. */
  async function startHere(form, button) {
    if (starting.has(form)) return;
    starting.add(form);
    const data = new FormData(form);
    if (button && button.name) data.append(button.name, button.value);
    let answer = null;
    let links = null;
    try {
      answer = await ask(form.getAttribute("action") || location.href, {
        method: "POST", body: data, headers: {Accept: "application/json"},
      });
      if (answer.status === 202) links = (await answer.json()).links;
    } catch (error) {
      fieldsOf(form)[0].complain("unsent");
    }
    starting.delete(form);
    if (links) {
      transfersIn(["done"], form).forEach(function (it) { memory.forget(it.key); });
      if (!(await show(form, links.processing))) location.assign(links.processing);
    } else if (answer) {
      // No job was started, and the server's page says why.
      delete form.dataset.asyncviewFollow;
      form.requestSubmit(button);
    }
  }

  function ask(url, options) {
    // A redirect is for the browser itself: what it leads to is shown only once.
    return fetch(url, Object.assign({credentials: "same-origin", redirect: "manual"}, options));
  }

  async function show(form, url) {
    let page = null;
    try {
      const answer = await ask(url, {headers: {Accept: "text/html"}});
      if (answer.ok) page = new DOMParser().parseFromString(await answer.text(), "text/html");
    } catch (error) {
      return false;
    }
    const section = page && page.querySelector("[data-asyncview-url]");
    if (!section || !window.asyncview.follow) return false;
    // The job has an address of its own: to reload, to keep, to come back to.
    history.pushState(null, "", url);
    window.addEventListener("popstate", function () { location.reload(); });
    document.title = page.title;
    const chosen = form.dataset.asyncviewFollow;
    const part = (chosen && page.querySelector(chosen)) || section;
    form.closest(chosen || "form").replaceWith(document.adoptNode(part));
    fields = fields.filter(function (field) { return field.input.isConnected; });
    window.asyncview.follow(section.dataset.asyncviewUrl, {
      element: section, interval: section.dataset.asyncviewInterval,
    });
    const heading = section.querySelector("h1, h2");
    if (heading) {
      heading.tabIndex = -1;
      heading.focus();
    }
    return true;
  }

  // The page as a whole

  function targetOf(event) {
    if (event.defaultPrevented || !event.dataTransfer) return null;
    if (!Array.from(event.dataTransfer.types).includes("Files")) return null;
    return fields.find(function (field) {
      return field.input === event.target || field.box.contains(event.target);
    }) || (fields.length === 1 ? fields[0] : {box: document.createElement("div")});
  }

  function mark(chosen) {
    fields.forEach(function (field) {
      field.box.classList.toggle("av-upload-over", field === chosen);
    });
  }

  function listen() {
    document.addEventListener("dragover", function (event) {
      const field = targetOf(event);
      if (!field) return;
      // Without this the browser leaves the page, and opens the file that missed.
      event.preventDefault();
      event.dataTransfer.dropEffect = field.drop ? "copy" : "none";
      mark(field);
    });
    document.addEventListener("dragleave", function (event) {
      if (!event.relatedTarget) mark(null);
    });
    document.addEventListener("drop", function (event) {
      const field = targetOf(event);
      mark(null);
      if (!field) return;
      event.preventDefault();
      if (field.drop) field.drop(Array.from(event.dataTransfer.files));
    });
    window.addEventListener("online", function () {
      transfersIn(["lost"]).forEach(function (it) { it.hurry(); });
    });
    window.addEventListener("beforeunload", function (event) {
      if (transfersIn(MOVING).length) event.preventDefault();
    });
    window.addEventListener("pageshow", function (event) {
      // A form that was sent has given its uploads away.
      if (event.persisted) transfersIn(["done"]).forEach(function (it) { it.pause(); });
    });
    setInterval(function () {
      fields.forEach(function (field) { field.tick(); });
    }, 1000);
  }

  function enhanceAll() {
    document.querySelectorAll("input[data-asyncview-upload]").forEach(enhance);
  }

  window.asyncview = Object.assign(window.asyncview || {}, {upload: enhance});
  listen();
  if (document.readyState === "loading") {
    document.addEventListener("DOMContentLoaded", enhanceAll);
  } else {
    enhanceAll();
  }
})();
