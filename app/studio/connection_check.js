// Shows on the page why its WebSocket does not connect. Without this notice the page would stay empty.
// The server adds this script to the page (app/web/connection_notice.py).
(() => {
  const address = `${location.pathname.replace(/\/[^/]*$/, "")}/connection`;
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  const NO_SOCKETS =
    "The page has loaded, but its WebSocket does not connect: a proxy in front of it does not pass WebSockets. " +
    "In nginx, set proxy_http_version 1.1 and the headers Upgrade and Connection for this location. " +
    "docs/serving.md has the lines for nginx, Caddy and Traefik.";

  const canOpen = () =>
    new Promise((resolve) => {
      const socket = new WebSocket(`${scheme}//${location.host}${address}`);
      setTimeout(() => resolve(false), 10000);
      socket.onerror = () => resolve(false);
      socket.onopen = () => {
        resolve(true);
        socket.close();
      };
    });

  const show = (text) => {
    const notice = document.createElement("div");
    notice.id = "connection-notice";
    notice.setAttribute("role", "alert");
    notice.textContent = text;
    notice.style.cssText =
      "position:fixed;inset:0 0 auto 0;z-index:1000000;padding:1rem 1.5rem;background:#7a1f1f;color:#fff;" +
      "font:16px/1.5 sans-serif";
    document.body.append(notice);
  };

  const check = async () => {
    for (let attempt = 0; attempt < 2; attempt++) {
      if (await canOpen()) return;
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
    try {
      const answer = await fetch(address, { method: "POST" }); // a POST names the page's origin, as a WebSocket does
      show(answer.ok ? NO_SOCKETS : await answer.text());
    } catch {
      // The server does not answer, and the page shows that itself.
    }
  };
  check();
})();
