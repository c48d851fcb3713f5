"use strict";
(() => {
  const SOONEST = 2000, LATEST = 30000, TIMEOUT = 8000, STALE_AFTER = 6000;
  const stale = document.getElementById("stale");
  let answered = Date.now(), pause = SOONEST, timer = 0, asking = false;

  // Change only what differs, so that a selection, the scroll position and a screen reader's place survive.
  const follow = (old, fresh) => {
    if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) return old.replaceWith(fresh);
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.data !== fresh.data) old.data = fresh.data;
      return undefined;
    }
    for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
    for (const { name, value } of fresh.attributes) {
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    const before = [...old.childNodes], after = [...fresh.childNodes];
    after.forEach((node, at) => (at < before.length ? follow(before[at], node) : old.append(node)));
    before.slice(after.length).forEach((node) => node.remove());
    return undefined;
  };

  const tell = () => {
    const silent = Date.now() - answered;
    const gone = silent > STALE_AFTER;
    document.body.classList.toggle("stale", gone);
    stale.hidden = !gone;
    if (gone) {
      const since = `${new Date(answered).toISOString().slice(0, 19)}Z`;
      stale.querySelector("time").textContent = since;
      stale.querySelector("span").textContent = `${Math.round(silent / 1000)} s`;
    }
  };

  const ask = async () => {
    if (asking) return;
    asking = true;
    clearTimeout(timer);
    try {
      const reply = await fetch("/", { cache: "no-store", signal: AbortSignal.timeout(TIMEOUT) });
      const fresh = new DOMParser().parseFromString(await reply.text(), "text/html");
      for (const name of ["main", "footer"]) follow(document.querySelector(name), fresh.querySelector(name));
      document.title = fresh.title;
      answered = Date.now();
      pause = SOONEST;
    } catch {
      pause = Math.min(LATEST, pause * 2);
    }
    asking = false;
    tell();
    timer = setTimeout(ask, pause);
  };

  setInterval(tell, 1000);
  document.addEventListener("visibilitychange", () => document.hidden || ask());
  timer = setTimeout(ask, pause);
})();
