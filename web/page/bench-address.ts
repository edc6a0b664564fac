/** `bench.html` was a page of its own: its address leads to the tab, with what it asks for. */
location.replace(new URL(`./${location.search}#bench`, location.href));
