"use strict";
// Phones show notifications only by a worker. This one opens the page on a tap, and does nothing else.

self.addEventListener("notificationclick", (event) => {
  event.notification.close();
  event.waitUntil(self.clients.matchAll({ type: "window", includeUncontrolled: true }).then((pages) => {
    const there = pages.find((page) => new URL(page.url).pathname === event.notification.data);
    return there ? there.focus() : self.clients.openWindow(event.notification.data);
  }));
});
