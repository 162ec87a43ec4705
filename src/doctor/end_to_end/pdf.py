import pdfkit

made = pdfkit.from_string("<h1>CamCOPS</h1>", False, options={"quiet": ""})
if made[:5] != b"%PDF-":
    raise SystemExit("what wkhtmltopdf made is no PDF")
print(len(made))
