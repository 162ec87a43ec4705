"""Has CamCOPS make its PDF documents by WeasyPrint, in a release without pdfkit. Each process that runs in the release loads
this when it starts; CamCOPS's own files stay as they are."""

import sys


def _choose_engine(module):
    if getattr(module, "PDF_ENGINE", None) != "pdfkit":
        # This version of CamCOPS uses WeasyPrint by itself, and its pages are made for it.
        _changes.clear()
        _load()
        return
    module.PDF_ENGINE = "weasyprint"
    module.CSS_PAGED_MEDIA = True
    # Of each page they would say how far they are, and which words of the style sheet they do not know.
    import logging

    for name in ("weasyprint", "fontTools"):
        logging.getLogger(name).setLevel(logging.ERROR)


# For paged media, CamCOPS's pages name header, footer and page numbers in the words of another engine: here the same in those
# of the standard. An answer stays beside its question, and a table as wide as the page. Its letters are as large as
# wkhtmltopdf makes them.
_STYLE = """<style>
@page {
    margin: 21mm 20mm 24mm;
    @top-left { content: element(header); width: 100%; vertical-align: bottom; padding-bottom: 3mm; }
    @bottom-left { content: element(footer); width: 100%; vertical-align: top; padding-top: 3mm; }
}
body { font-size: 8pt; }
#headerContent { position: running(header); margin: 0; padding: 0; }
#footerContent { position: running(footer); margin: 0; padding: 0; }
pdf\\:pagenumber::before { content: counter(page); }
pdf\\:pagecount::before { content: counter(pages); }
tr { break-inside: avoid; }
th, td { box-sizing: border-box; overflow-wrap: break-word; }
</style>"""


def _serves():
    """Whether other processes are made of this one: they share what it has loaded, and their first page comes at once."""
    return "worker" in sys.argv or any(word.startswith("serve_") for word in sys.argv[1:2])


_waits = True


def _load():
    """WeasyPrint itself."""
    global _waits
    if _waits:
        _waits = False
        sys.modules.pop("weasyprint", None)
    try:
        import weasyprint
        import weasyprint.text.fonts
        import weasyprint.urls
    except (ImportError, OSError):
        # Half of it is of no use, and what it lacks may come.
        for name in [name for name in sys.modules if name.partition(".")[0] == "weasyprint"]:
            del sys.modules[name]
        raise
    return weasyprint


class _StandIn:
    """CamCOPS loads WeasyPrint whenever it starts, which takes more than a second: this is what it gets until it is used."""

    @staticmethod
    def create_module(spec):
        return None

    @staticmethod
    def exec_module(module):
        def load(name):
            if name.startswith("_"):
                raise AttributeError(name)
            return getattr(_load(), name)

        module.__getattr__ = load


def _load_ahead():
    try:
        _load()
    except (ImportError, OSError) as why:
        # A site without PDF documents is better than none.
        import logging

        log = logging.getLogger("camcops_provision")
        log.error(f"PDF documents can't be made: {why}; see `camcops-provision doctor packages e2e.pdf`")


def _make_pages(module):
    import atexit
    import threading

    # The libraries that it stands on are not made for several threads.
    one_at_a_time = threading.Lock()
    fonts = []
    if _serves():
        _load_ahead()

    def pdf_from_html(req, html, header_html=None, footer_html=None, extra_wkhtmltopdf_options=None):
        weasyprint = _load()
        # A document has all in itself but for the logos: it must not wait for another machine, nor tell it anything.
        fetcher = weasyprint.urls.URLFetcher(allowed_protocols=("data", "file"))
        document = weasyprint.HTML(string=html.replace("</head>", _STYLE + "</head>", 1), url_fetcher=fetcher)
        with one_at_a_time:
            # What fontconfig has read once for each document, it would never give back.
            if not fonts:
                fonts.append(weasyprint.text.fonts.FontConfiguration())
                # Later, the libraries that it is freed by may be gone before it.
                atexit.register(fonts.clear)
            # Widths of columns stand in the pages as attributes.
            return document.write_pdf(presentational_hints=True, font_config=fonts[0])

    module.pdf_from_html = pdf_from_html


_changes = {
    "camcops_server.cc_modules.cc_constants": _choose_engine,
    "camcops_server.cc_modules.cc_pdf": _make_pages,
}


class _Loading:
    """Finds modules where everybody finds them, and changes each when it is loaded."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        stands_in = name == "weasyprint" and _waits
        if name not in _changes and not stands_in:
            return None
        from importlib.machinery import ModuleSpec, PathFinder

        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return None
        if stands_in:
            return ModuleSpec(name, _StandIn)
        load = spec.loader.exec_module

        def load_and_change(module):
            load(module)
            change = _changes.pop(name, None)
            if change is not None:
                change(module)

        spec.loader.exec_module = load_and_change
        return spec


sys.meta_path.insert(0, _Loading)
